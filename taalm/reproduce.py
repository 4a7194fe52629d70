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
from dataclasses import asdict, dataclass, field
from pathlib import Path

from taalm import ceiling, evaluate, train_ta
from taalm.ablations import table as ablations
from taalm.benchmarks.lama_ckl import data_folder
from taalm.checkpoint import plain
from taalm.config import parse, run_entry
from taalm.errors import NoResult, UserError
from taalm.evaluate import EvaluateConfig, settle_questions
from taalm.grid import ABLATIONS, CEILING, ROWS
from taalm.intervals import table as intervals
from taalm.methods import get_method
from taalm.out_of_memory import SAME_NUMBERS
from taalm.results import Result, load_result, load_results, method_of, table
from taalm.run_folder import flatten, same_inputs

MODEL = "smollm2-135m"
RATES = ("1e-4", "3e-4", "1e-3")
PRECISION = "fp32"  # the split was chosen in it: do-nothing answers every NOT-TO-FORGET row
HALF_BATCH = "8"  # of a reported run's 16: half as many facts make as many updates
HALVES = ("--swap_halves", "true", "--half_batch", HALF_BATCH)
KINDS = {"final": ROWS, "balanced": ROWS, "ablations": ABLATIONS}  # folder of result files -> the rows there are


@dataclass
class Grid:
    """Runs cells and counts them."""

    out: Path
    kind: str  # of KINDS
    data: Path  # the split's folder
    review: str  # the review texts
    epochs: int
    limit: int
    done: int = 0
    seconds: list[float] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = KINDS[self.kind]

    def phi(self, row: str, seed: int) -> Path:
        """Train-Attention of that seed, trained where it is not there yet. Raises NoResult where its facts are not."""
        flags = [str(self.data / part) if part.endswith(".jsonl") else part for part in self.rows[row].phi]
        for part in flags:
            if part.endswith(".jsonl") and not Path(part).is_file():
                raise NoResult(f"there is no {part}, on which this phi is trained")
        name = f"{row}_s{seed}" if flags else f"seed{seed}"
        folder = self.out / "phi" / name
        if not (folder / "report.json").is_file():
            given = ["--data", str(self.data), "--out", str(folder.parent), "--name", name, "--seed", str(seed)]
            self._timed(f"phi {name}", lambda: train_ta.main([*given, "--quiet", "true", *flags]))
        return folder / "phi"

    def weights(self, asked: list[str]) -> Path:
        """Weights trained on the own probes of the facts that the flags `asked` name (taalm.ceiling), seed 42."""
        facts = dict(zip(asked[::2], asked[1::2], strict=True))
        folder = self.out / "ceiling" / Path(facts["--to_learn"]).stem
        given = ["--to_learn", facts["--to_learn"], "--limit", facts.get("--limit", "0"), "--out", str(folder)]
        self._timed(f"weights {folder.name}", lambda: ceiling.main([*given, "--quiet", "true", *CEILING]))
        return folder / "weights.jsonl"

    def cell(self, kind: str, name: str, row: str, seed: int, flags: list[str]) -> Result | None:
        """The result of one cell, or None where it cannot be had (its loss is no number).

        Raises UserError where its result file is there and was made with other settings.
        """
        path = self.out / kind / f"{name}.pkl"
        method, fresh = self.rows[row].method, ("--quiet", "true", "--save_adapter", "false")
        given = ["--data", str(self.data), "--out", str(path.parent), "--name", name, "--method", method]
        given += ["--seed", str(seed), "--adapt.epochs", str(self.epochs), "--model.precision", PRECISION, *fresh]
        parts = get_method(method)
        if self.review and parts.rehearsal:
            given += ["--review.data", self.review]
        given += [*self.rows[row].given, *flags]
        if path.is_file():
            result, settings = load_result(path), _settings(given)
            _refuse_another(path, result["config"], settings)
            if not evaluate.missing(settings, result):
                self.done += 1
                return result
        try:
            if parts.takes_phi:
                given += ["--phi", str(self.phi(row, seed))]
            if parts.weighter == "given":
                given += ["--weights", str(self.weights(flags))]
            self._timed(f"{kind}/{name}", lambda: evaluate.main(given))
        except NoResult as error:
            return self._not_to_be_had(f"{kind}/{name}", error)
        self.done += 1
        return load_result(path)

    def _not_to_be_had(self, what: str, error: NoResult) -> None:
        self.failed[what] = str(error)
        print(f"{what}: {error}")

    def _timed(self, what: str, run) -> None:
        mean = f", {sum(self.seconds) / len(self.seconds) / 60:.1f} min a cell so far" if self.seconds else ""
        print(f"\n== {what} ({self.done} cells done{mean})", flush=True)
        started = time.perf_counter()
        run()
        self.seconds.append(time.perf_counter() - started)

    def tuned(self, row: str) -> list[str]:
        """The flags that do best on the tuning rows: the rate first, then the method's own parameter."""
        if self.rows[row].fixed:
            return list(self.rows[row].fixed)
        rows = self._tuning_rows()
        if self.rows[row].own is None:
            return self._best(row, {f"lr{rate}": ["--adapt.lr", rate] for rate in RATES}, rows)
        flag, values = self.rows[row].own

        def best(rates: Sequence[str], values: Sequence[str]) -> list[str]:
            pairs = [(rate, value) for rate in rates for value in values]
            choices = {f"lr{rate}_{flag[2:]}{value}": ["--adapt.lr", rate, flag, value] for rate, value in pairs}
            return self._best(row, choices, rows)

        return best(best(RATES, values[:1])[1:2], values)

    def _tuning_rows(self) -> list[str]:
        rows = ["--to_learn", str(self.data / "tune_to_learn.jsonl"), "--adapt.batch_size", HALF_BATCH]
        return [*rows, "--not_to_forget", str(self.data / "tune_not_to_forget.jsonl")]

    def _facts(self) -> list[str]:
        """Ablations are asked on the tuning rows."""
        if self.kind == "ablations":
            return self._tuning_rows()
        name = "to_learn" if self.kind == "final" else "to_learn_balanced"
        return ["--to_learn", str(self.data / f"{name}.jsonl"), "--limit", str(self.limit)]

    def _best(self, row: str, choices: dict[str, list[str]], rows: list[str]) -> list[str]:
        found = {}
        for name, flags in choices.items():
            result = self.cell("tuning", f"{row}_{name}", row, 42, [*rows, *flags])
            if result is not None:
                found[name] = result["summary"]
        if not found:
            raise NoResult("no cell of its tuning grid can be had")
        learned = {name: summary for name, summary in found.items() if summary["top_epoch"] > 0} or found
        chosen = max(learned, key=lambda name: (learned[name]["final_total"], learned[name].get("total") or 0))
        print(f"{row}: {chosen} (final Total {learned[chosen]['final_total']:.3f} on the tuning rows)")
        return choices[chosen]

    def run(self, rows: list[str], seeds: list[int]) -> Iterator[str]:
        """All cells: choices first, then seed by seed, so that a table stands as early as it can."""
        chosen: dict[str, list[str]] = {}
        for row in rows:
            try:
                chosen[row] = self.tuned(row)
            except NoResult as error:
                self._not_to_be_had(row, error)
        halves = () if self.kind == "ablations" else HALVES
        for seed in seeds:
            for row, flags in chosen.items():
                if seed == seeds[0] or not self.rows[row].once:
                    self.cell(self.kind, f"{row}_s{seed}", row, seed, [*self._facts(), *halves, *flags])
            yield f"seed {seed}"


# of a machine, or later
ITS_OWN = {"data", "out", "name", "phi", "phi_runs", "weights", "swap_halves", "scales", *SAME_NUMBERS}


def _settings(given: list[str]) -> EvaluateConfig:
    """A cell's settings, as the run that these flags start has them."""
    settings = parse(EvaluateConfig, "evaluate/lama_ckl", given, "python -m taalm.evaluate")
    settle_questions(settings)
    return settings


def _refuse_another(path: Path, config: dict, settings: EvaluateConfig) -> None:
    """Raises UserError where the result file `path` was made (`config`) with other settings than these."""
    wanted = flatten(plain(asdict(settings)))
    made = flatten(config)
    for key in sorted(set(wanted) & set(made) - ITS_OWN):
        before, now = (Path(value).name if isinstance(value, str) else value for value in (made[key], wanted[key]))
        if before != now:
            raise UserError(
                f"{path}: was made with --{key} {before!r}, this grid has {now!r}; give --out another folder"
            )


def _seeds(given: str) -> list[int]:
    return [int(seed) for seed in given.split(",")]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.reproduce", description="The grid of docs/protocol.md.")
    parser.add_argument("--data", default="", help="data folder; default TAALM_DATA, else the sample set")
    parser.add_argument("--out", type=Path, default=Path("results/reproduce"), help="folder of result files")
    parser.add_argument("--rows", default="", help="some of them, joined by commas; default all")
    parser.add_argument(
        "--kind", default="final", choices=KINDS, help="balanced: on to_learn_balanced; ablations: phi's"
    )
    parser.add_argument(
        "--seeds", type=_seeds, default="42,43,44", help="seeds of the reported cells, phi's among them"
    )
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--limit", type=int, default=128, help="reported TO-LEARN facts; 0 takes all")
    given = parser.parse_args(arguments)
    known = KINDS[given.kind]
    rows = given.rows.split(",") if given.rows else list(known)
    unknown = [row for row in rows if row not in known]
    if unknown:
        raise UserError(f"--rows {unknown[0]}: not in the grid; there are {', '.join(known)}")
    data = Path(given.data or os.environ.get("TAALM_DATA", ""))
    review = data / "wikitext-2/valid.txt"
    if not review.is_file():
        print(f"{review} is not there: TA-train documents are the review texts")
    texts = str(review) if review.is_file() else ""
    folder = data_folder(given.data, MODEL)
    files = [*sorted(folder.glob("*.jsonl")), *([review] if texts else [])]
    same_inputs(given.out, {f"data ({path.name})": path.read_bytes() for path in files})
    grid = Grid(given.out, given.kind, folder, texts, given.epochs, given.limit)
    base, compare = ("preset", ablations) if given.kind == "ablations" else ("finetune", intervals)
    for reached in grid.run(rows, given.seeds):
        results = load_results(given.out / given.kind)
        if not results:
            continue
        against = base if any(method_of(name) == base for name in results) else ""
        print(f"\nup to {reached}:\n{table(results)}\n\n{compare(results, against)}", flush=True)
    for name, reason in grid.failed.items():
        print(f"not to be had: {name}: {reason}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
