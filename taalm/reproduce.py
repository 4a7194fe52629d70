"""The grid of docs/protocol.md: `python -m taalm.reproduce`, or `bash scripts/reproduce.sh`.

Every cell is a result file; a finished one is read, an interrupted one goes on. First each row's rate (at the first
value of its own parameter) and then that parameter are chosen on the tuning rows, then the chosen cell runs on the
reported rows, seed by seed. Several processes can share the rows (--rows): their cells are other files.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taalm import evaluate, train_ta
from taalm.benchmarks.lama_ckl import data_folder
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.intervals import table as intervals
from taalm.results import Result, load_result, load_results, table

MODEL = "smollm2-135m"
RATES = ("1e-4", "3e-4", "1e-3")
RHO_KEEP = ("--rho.keep", ("0.6", "0.4", "0.8"))
RECALL = ("--recadam.coefficient", ("1250", "5000"))  # rate times coefficient must stay below 2
REVIEW = ("--review.ratio", ("0.25", "0.5", "1"))
REPORTED = {"final": "to_learn", "balanced": "to_learn_balanced"}  # folder of result files -> the facts


@dataclass(frozen=True)
class Row:
    """A row of the table: a method, and what is chosen for it on the tuning rows."""

    method: str
    own: tuple[str, tuple[str, ...]] | None = None  # its own main parameter: a flag, its values
    fixed: tuple[str, ...] = ()  # flags in place of choosing any
    phi: tuple[str, ...] = ()  # flags of train_ta, where phi is not trained by the preset
    once: bool = False  # the first seed alone

    @property
    def reviews(self) -> bool:
        return any(part in ("kl", "review") for part in self.method.split("+"))


VIEWS = ("--preset", "smollm2-135m-views", "--adapt.epochs", "8")  # chosen on the tuning rows too: experiments.md, 18
ROWS: dict[str, Row] = {  # in the order in which time is spent
    "finetune": Row("finetune"),
    "targeted": Row("targeted"),
    "oracle": Row("oracle"),
    "targeted+views+kl": Row("targeted+views+kl", fixed=VIEWS),
    "targeted+recadam": Row("targeted+recadam", RECALL),
    "targeted+kl": Row("targeted+kl", REVIEW),
    "rho": Row("rho", RHO_KEEP),
    "recadam": Row("recadam", RECALL),
    "review": Row("review", REVIEW),
    "kl": Row("kl", REVIEW),
    "kadapter": Row("kadapter"),
    "oracle+kl": Row("oracle+kl", REVIEW),
    "rho+kl": Row("rho+kl", REVIEW),
    "targeted+review": Row("targeted+review", REVIEW),
    "finetune_low": Row("finetune", fixed=("--adapt.lr", "3e-5")),
    "oracle+views+kl": Row("oracle+views+kl", fixed=VIEWS),
    "targeted_cross": Row("targeted", phi=("--train_data", "ta_train_cross.jsonl"), once=True),
    "targeted+kadapter": Row("targeted+kadapter", once=True),
    "targeted+kl+recadam": Row("targeted+kl+recadam", RECALL, once=True),
    "rho_theta0": Row("rho_theta0", RHO_KEEP, once=True),
    "sstoken_rel": Row("sstoken_rel", RHO_KEEP, once=True),
    "surprisal": Row("surprisal", once=True),
    "ner": Row("ner", once=True),
    "tfidf": Row("tfidf", once=True),
    "oracle_bidirectional": Row("oracle_bidirectional", once=True),
}


@dataclass
class Grid:
    """Runs cells and counts them."""

    out: Path
    kind: str  # of REPORTED
    data: Path  # the split's folder
    review: str  # the review texts
    questions: str  # the relations' templates
    epochs: int
    limit: int
    done: int = 0
    seconds: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def phi(self, row: str, seed: int) -> Path:
        """Train-Attention of that seed, trained where it is not there yet."""
        flags = [str(self.data / part) if part.endswith(".jsonl") else part for part in ROWS[row].phi]
        name = f"{row}_s{seed}" if flags else f"seed{seed}"
        folder = self.out / "phi" / name
        if not (folder / "report.json").is_file():
            given = ["--data", str(self.data), "--out", str(folder.parent), "--name", name, "--seed", str(seed)]
            self._timed(f"phi {name}", lambda: train_ta.main([*given, "--quiet", "true", *flags]))
        return folder / "phi"

    def cell(self, kind: str, name: str, row: str, seed: int, flags: list[str]) -> Result | None:
        """The result of one cell, or None where it cannot be had (its loss is no number)."""
        path = self.out / kind / f"{name}.pkl"
        if not path.is_file():
            method, fresh = ROWS[row].method, ("--quiet", "true", "--save_adapter", "false")
            given = ["--data", str(self.data), "--out", str(path.parent), "--name", name, "--method", method]
            given += ["--seed", str(seed), "--adapt.epochs", str(self.epochs), *fresh]
            if "targeted" in method:
                given += ["--phi", str(self.phi(row, seed))]
            if self.review and ROWS[row].reviews:
                given += ["--review.data", self.review]
            if self.questions and "views" in method.split("+"):
                given += ["--views.questions", self.questions]
            try:
                self._timed(f"{kind}/{name}", lambda: evaluate.main([*given, *flags]))
            except UserError as error:
                self.failed[f"{kind}/{name}"] = str(error)
                print(f"{kind}/{name}: {error}")
                return None
        self.done += 1
        return load_result(path)

    def _timed(self, what: str, run) -> None:
        mean = f", {sum(self.seconds) / len(self.seconds) / 60:.1f} min a cell so far" if self.seconds else ""
        print(f"\n== {what} ({self.done} cells done{mean})", flush=True)
        started = time.perf_counter()
        run()
        self.seconds.append(time.perf_counter() - started)

    def tuned(self, row: str) -> list[str]:
        """The flags that do best on the tuning rows: the rate first, then the method's own parameter.

        A batch is half of a reported run's, since the rows are half as many: both make as many updates.
        """
        if ROWS[row].fixed:
            return list(ROWS[row].fixed)
        rows = ["--to_learn", str(self.data / "tune_to_learn.jsonl"), "--adapt.batch_size", "8"]
        rows += ["--not_to_forget", str(self.data / "tune_not_to_forget.jsonl")]
        if ROWS[row].own is None:
            return self._best(row, {f"lr{rate}": ["--adapt.lr", rate] for rate in RATES}, rows)
        flag, values = ROWS[row].own

        def best(rates: Sequence[str], values: Sequence[str]) -> list[str]:
            pairs = [(rate, value) for rate in rates for value in values]
            choices = {f"lr{rate}_{flag[2:]}{value}": ["--adapt.lr", rate, flag, value] for rate, value in pairs}
            return self._best(row, choices, rows)

        return best(best(RATES, values[:1])[1:2], values)

    def _best(self, row: str, choices: dict[str, list[str]], rows: list[str]) -> list[str]:
        found = {}
        for name, flags in choices.items():
            result = self.cell("tuning", f"{row}_{name}", row, 42, [*rows, *flags])
            if result is not None:
                found[name] = result["summary"]
        if not found:
            raise UserError(f"{row}: no cell of the tuning grid could be run: {self.failed}")
        learned = {name: summary for name, summary in found.items() if summary["top_epoch"] > 0} or found
        chosen = max(learned, key=lambda name: learned[name]["final_total"])
        print(f"{row}: {chosen} (final Total {learned[chosen]['final_total']:.3f} on the tuning rows)")
        return choices[chosen]

    def run(self, rows: list[str], seeds: list[int]) -> Iterator[str]:
        """All cells: choices first, then seed by seed, so that a table stands as early as it can."""
        chosen = {row: self.tuned(row) for row in rows}
        facts = ["--to_learn", str(self.data / f"{REPORTED[self.kind]}.jsonl"), "--limit", str(self.limit)]
        for seed in seeds:
            for row, flags in chosen.items():
                if seed == seeds[0] or not ROWS[row].once:
                    self.cell(self.kind, f"{row}_s{seed}", row, seed, [*facts, "--swap_halves", "true", *flags])
            yield f"seed {seed}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.reproduce", description="The grid of docs/protocol.md.")
    parser.add_argument("--data", default="", help="data folder; default TAALM_DATA, else the sample set")
    parser.add_argument("--out", type=Path, default=Path("results/reproduce"), help="folder of result files")
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them, joined by commas")
    parser.add_argument("--facts", default="final", choices=REPORTED, help="to_learn or to_learn_balanced is reported")
    parser.add_argument("--seeds", default="42,43,44", help="seeds of the reported cells, phi's among them")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--limit", type=int, default=128, help="reported TO-LEARN facts; 0 takes all")
    given = parser.parse_args(arguments)
    rows = given.rows.split(",")
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise UserError(f"--rows {unknown[0]}: not in the grid; there are {', '.join(ROWS)}")
    data = Path(given.data or os.environ.get("TAALM_DATA", ""))
    texts, templates = (
        str(file) if file.is_file() else "" for file in (data / "wikitext-2/valid.txt", data / "wikidata/templates.csv")
    )
    grid = Grid(given.out, given.facts, data_folder(given.data, MODEL), texts, templates, given.epochs, given.limit)
    for reached in grid.run(rows, [int(seed) for seed in given.seeds.split(",")]):
        results = load_results(given.out / given.facts)
        against = "finetune" if any(name.startswith("finetune_s") for name in results) else ""
        print(f"\nup to {reached}:\n{table(results)}\n\n{intervals(results, against)}", flush=True)
    for name, reason in grid.failed.items():
        print(f"not to be had: {name}: {reason}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
