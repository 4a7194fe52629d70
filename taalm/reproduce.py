"""The grid of docs/protocol.md: `python -m taalm.reproduce`, or `bash scripts/reproduce.sh`.

Every cell is a result file; a finished one is read, an interrupted one goes on. First each method's rate and then its
own parameter are chosen on the tuning rows, then the chosen cell runs on the reported rows, seed by seed.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
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
RHO_KEEP = ("--rho.keep", ("0.4", "0.6", "0.8"))
RECALL = ("--recadam.coefficient", ("1250", "5000"))  # rate times coefficient must stay below 2
REVIEW = ("--review.ratio", ("0.25", "0.5", "1"))
Parameter = tuple[str, tuple[str, ...]]
OWN: dict[str, Parameter | None] = {  # method -> its own main parameter; in the order in which time is spent
    "finetune": None,
    "targeted": None,
    "oracle": None,
    "rho": RHO_KEEP,
    "recadam": RECALL,
    "review": REVIEW,
    "kl": REVIEW,
    "kadapter": None,
    "targeted+recadam": RECALL,
    "targeted+kl": REVIEW,
    "targeted+review": REVIEW,
    "oracle+kl": REVIEW,
    "rho+kl": REVIEW,
    "surprisal": None,
    "ner": None,
    "tfidf": None,
    "oracle_bidirectional": None,
}


@dataclass
class Grid:
    """Runs cells and counts them."""

    out: Path
    data: Path  # the split's folder
    review: str  # the review texts
    epochs: int
    limit: int
    done: int = 0
    seconds: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def phi(self, seed: int) -> Path:
        """Train-Attention of that seed, trained where it is not there yet."""
        runs = self.out / "phi"
        folder = runs / f"seed{seed}" / "phi"
        if not (runs / f"seed{seed}" / "report.json").is_file():
            self._timed(f"phi of seed {seed}", lambda: train_ta.main(
                ["--data", str(self.data), "--out", str(runs), "--seed", str(seed), "--quiet", "true"]
            ))  # fmt: skip
        return folder

    def cell(self, kind: str, name: str, method: str, seed: int, flags: list[str]) -> Result | None:
        """The result of one cell, or None where it cannot be had (its loss is no number)."""
        path = self.out / kind / f"{name}.pkl"
        if not path.is_file():
            given = ["--data", str(self.data), "--out", str(path.parent), "--name", name, "--method", method]
            given += [
                "--seed",
                str(seed),
                "--adapt.epochs",
                str(self.epochs),
                "--quiet",
                "true",
                "--save_adapter",
                "false",
            ]
            if "targeted" in method:
                given += ["--phi", str(self.phi(seed))]
            if self.review and any(part in ("kl", "review") for part in method.split("+")):
                given += ["--review.data", self.review]
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

    def tuned(self, method: str, own: Parameter | None) -> list[str]:
        """The flags that do best on the tuning rows: the rate first, then the method's own parameter."""
        rows = ["--to_learn", str(self.data / "tune_to_learn.jsonl")]
        rows += ["--not_to_forget", str(self.data / "tune_not_to_forget.jsonl")]
        flag_of = {f"lr{rate}": ["--adapt.lr", rate] for rate in RATES}
        best = self._best(method, flag_of, rows)
        if own is not None:
            flag, values = own
            best = self._best(method, {f"{_short(best)}_{flag[2:]}{v}": [*best, flag, v] for v in values}, rows)
        return best

    def _best(self, method: str, choices: dict[str, list[str]], rows: list[str]) -> list[str]:
        found = {}
        for name, flags in choices.items():
            result = self.cell("tuning", f"{method}_{name}", method, 42, [*rows, *flags])
            if result is not None:
                found[name] = result["summary"]
        if not found:
            raise UserError(f"{method}: no cell of the tuning grid could be run: {self.failed}")
        learned = {name: row for name, row in found.items() if row["top_epoch"] > 0} or found
        chosen = max(learned, key=lambda name: learned[name]["final_total"])
        print(f"{method}: {chosen} (final Total {learned[chosen]['final_total']:.3f} on the tuning rows)")
        return choices[chosen]

    def run(self, methods: list[str], seeds: list[int]) -> Iterator[str]:
        """All cells: choices first, then seed by seed, so that a table stands as early as it can."""
        chosen = {method: self.tuned(method, OWN[method]) for method in methods}
        for seed in seeds:
            for method, flags in chosen.items():
                self.cell("final", f"{method}_s{seed}", method, seed, ["--limit", str(self.limit), *flags])
            yield f"seed {seed}"


def _short(flags: list[str]) -> str:
    return f"lr{flags[1]}"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.reproduce", description="The grid of docs/protocol.md.")
    parser.add_argument("--data", default="", help="data folder; default TAALM_DATA, else the sample set")
    parser.add_argument("--out", type=Path, default=Path("results/reproduce"), help="folder of result files")
    parser.add_argument("--methods", default=",".join(OWN), help="some of them, joined by commas")
    parser.add_argument("--seeds", default="42,43,44", help="seeds of the reported cells, phi's among them")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--limit", type=int, default=128, help="reported TO-LEARN facts; 0 takes all")
    given = parser.parse_args(arguments)
    methods = given.methods.split(",")
    unknown = [method for method in methods if method not in OWN]
    if unknown:
        raise UserError(f"--methods {unknown[0]}: not in the grid; there are {', '.join(OWN)}")
    texts = Path(given.data or os.environ.get("TAALM_DATA", "")) / "wikitext-2" / "valid.txt"
    folder = data_folder(given.data, MODEL)
    grid = Grid(given.out, folder, str(texts) if texts.is_file() else "", given.epochs, given.limit)
    for reached in grid.run(methods, [int(seed) for seed in given.seeds.split(",")]):
        results = load_results(given.out / "final")
        against = "finetune" if any(name.startswith("finetune_s") for name in results) else ""
        print(f"\nup to {reached}:\n{table(results)}\n\n{intervals(results, against)}", flush=True)
    for name, reason in grid.failed.items():
        print(f"not to be had: {name}: {reason}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
