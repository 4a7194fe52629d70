"""Result files: plain Python types in a pickle (as the published ones) with a JSON twin; a loader that runs no code."""

import argparse
import io
import json
import pickle
import re
import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taalm.checkpoint import plain, write_bytes, write_text
from taalm.errors import UserError

Result = dict[str, Any]
SEED = re.compile(r"_s(?:eed)?(\d+)$")  # at the end of a result's name


class _PlainUnpickler(pickle.Unpickler):
    """Rebuilds containers, text and numbers; refuses every class and function."""

    def find_class(self, module: str, name: str) -> Any:
        raise UserError(f"this pickle wants to import {module}.{name}; result files hold plain values only")


def save_result(path: Path, result: Result) -> None:
    """Write the JSON twin of `path` (.pkl), then `path`, each atomically; subclasses of plain types become plain."""
    result = plain(result)
    write_text(path.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    write_bytes(path, pickle.dumps(result, protocol=4))


def load_result(path: str | Path) -> Result:
    """Read a result file without executing anything. Raises UserError for a damaged or unsafe one."""
    path = Path(path)
    try:
        result = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror or error})") from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{path}: not a whole result file ({type(error).__name__}: {error})") from None
    if not isinstance(result, dict) or not isinstance(result.get("eval_result"), dict):
        raise UserError(f"{path}: not a result file of taalm: no 'eval_result'")
    return result


def load_results(folder: str | Path) -> dict[str, Result]:
    """Every result of a folder by name; a stream's result.pkl has the name of its own folder."""
    found = {path.stem: path for path in Path(folder).glob("*.pkl")}
    found |= {path.parent.name: path for path in Path(folder).glob("*/result.pkl")}
    return {name: load_result(path) for name, path in sorted(found.items())}


def some_results(folder: Path) -> dict[str, Result]:
    """The same, for commands that need any. Raises UserError where there are none."""
    found = load_results(folder)
    if not found:
        raise UserError(f"{folder}: no result files (*.pkl) here; the scripts under scripts/eval make them")
    return found


def method_of(name: str) -> str:
    """A result's name without its seed: finetune_s42 and finetune_seed43 are finetune."""
    return SEED.sub("", name)


def by_seed(results: Mapping[str, Result]) -> dict[str, dict[int, Result]]:
    """The results by method and seed: a name's end is its seed, else the configuration says it."""
    found: dict[str, dict[int, Result]] = {}
    for name, result in results.items():
        said = SEED.search(name)
        seed = int(said[1]) if said else int(result["config"].get("seed", 0))
        found.setdefault(method_of(name), {})[seed] = result
    return {method: dict(sorted(seeds.items())) for method, seeds in found.items()}


def chosen(results: dict[str, Result], only: str) -> dict[str, Result]:
    """Those results whose name, or name without the seed, is among the names `only`, joined by commas; "" is all.

    Raises UserError for a name that no result has.
    """
    names = only.split(",") if only else list(results)
    if unknown := [name for name in names if not any(name in (found, method_of(found)) for found in results)]:
        raise UserError(f"--only: there is no result {unknown[0]}; there are {', '.join(results)}")
    return {found: result for found, result in results.items() if {found, method_of(found)} & set(names)}


def add_only(parser: argparse.ArgumentParser) -> None:
    """The flag whose value `chosen` takes."""
    parser.add_argument("--only", default="", help="some of the results or methods, joined by commas")


def frame(results: Mapping[str, Result], row: str) -> dict[str, float | None]:
    """The values of a framing row, do-nothing or relation-majority, that most results have; {} where none has it."""
    rows = Counter(tuple(result["framing"].get(row, {}).items()) for result in results.values())
    return dict(rows.most_common(1)[0][0])


def is_stream(result: Result) -> bool:
    """Whether a result is the online wiki stream's."""
    return "em" in result.get("summary", {})


COLUMNS = (
    ("Top Acc", "top_acc"),
    ("Epoch", "top_epoch"),
    ("NF Acc", "nf_acc"),
    ("NF schem.", "nf_schematic_acc"),
    ("Total", "total"),
    ("Acc, NF>=.95", "kept_acc"),
    ("final Acc", "final_acc"),
    ("final NF", "final_nf_acc"),
    ("final Total", "final_total"),
    ("macro Acc", "macro_acc"),
    ("subj. first", "subject_first_acc"),
    ("obj. first", "object_first_acc"),
    ("adapted half", "adapted_acc"),
    ("unseen half", "unseen_acc"),
    ("read", "read_knowledge"),
    ("NF then", "halves_nf_acc"),
    ("min", "minutes"),
    ("GiB", "peak_gib"),
)


PERIOD_COLUMNS = (
    ("period", "period"),
    ("Un", "unchanged"),
    ("C", "changed"),
    ("average", "average"),
    ("min", "minutes"),
)
STREAM_COLUMNS = (
    ("EM", "em"),
    ("BWT", "bwt"),
    ("FWT", "fwt"),
    ("KG", "kg"),
    ("KAR", "kar"),
    ("FUAR", "fuar"),
    ("answer EM", "answer_em"),
    ("seconds", "seconds"),
)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def table(results: dict[str, Result]) -> str:
    """A Markdown table of LAMA-ckl results, the framing rows (do-nothing, relation-majority) first; or of streams, or
    of TemporalWiki's periods (mean object NLL)."""
    columns = STREAM_COLUMNS if any(map(is_stream, results.values())) else COLUMNS
    columns = PERIOD_COLUMNS if any("period" in result for result in results.values()) else columns
    rows: list[list[str]] = []
    framing: dict[str, dict[str, dict]] = {}
    for name, result in results.items():
        for row, values in result.get("framing", {}).items():
            shown = framing.setdefault(row, {})
            if values not in shown.values():  # other facts or another model: both are shown, once
                shown[f"{row} ({name})" if shown else row] = values
        values = {"period": result.get("period"), **result.get("summary", {})}
        rows.append([name, *(_cell(values.get(key)) for _, key in columns)])
    frames = {label: values for shown in framing.values() for label, values in shown.items()}
    framed = [[label, *(_cell(values.get(key)) for _, key in columns)] for label, values in frames.items()]
    rows = [["result", *(title for title, _ in columns)], *framed, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def averaged(results: Mapping[str, Result]) -> dict[str, Result]:
    """One result a method, for `table`: a value of its summary that all seeds have becomes their mean, with the
    standard deviation (of a sample) where it differs. Raises UserError for TemporalWiki's periods."""
    if any("period" in result for result in results.values()):
        raise UserError("--mean: these are periods of TemporalWiki; python -m taalm.period_intervals has their means")
    found = {}
    for method, seeds in by_seed(results).items():
        first = next(iter(seeds.values()))
        summary: dict[str, Any] = {}
        for key in first.get("summary", {}):
            values = [result["summary"].get(key) for result in seeds.values()]
            if all(isinstance(value, int | float) for value in values):
                spread = f" ±{statistics.stdev(values):.3f}" if len(set(values)) > 1 else ""
                summary[key] = f"{statistics.fmean(values):.3f}{spread}"
        found[f"{method} ({len(seeds)})"] = first | {"summary": summary}
    return found


def with_shares(results: Mapping[str, Result]) -> dict[str, Result]:
    """The results, and beside each a row for every share that --scales asked: "finetune x0.5_s42" by finetune_s42."""
    found = {}
    for name, result in results.items():
        found[name] = result
        for share, asked in result.get("scaled", {}).items():
            reached = {"final_acc": asked["acc_changed"], "final_nf_acc": asked["acc_unchanged"]}
            summary = asked | reached | {"final_total": asked["total"], "total": None}
            found[f"{method_of(name)} x{share}{name[len(method_of(name)) :]}"] = result | {"summary": summary}
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.results", description="The table of a folder of results.")
    parser.add_argument("folder", type=Path, nargs="?", default="results/lamackl", help="folder of result files")
    add_only(parser)
    parser.add_argument("--mean", action="store_true", help="one row a method: the mean of its seeds and their spread")
    parser.add_argument("--shares", action="store_true", help="also the rows of adapters scaled (--scales of evaluate)")
    given = parser.parse_args(arguments)
    results = chosen(some_results(given.folder), given.only)
    results = with_shares(results) if given.shares else results
    print(table(averaged(results) if given.mean else results))


if __name__ == "__main__":
    from taalm.config import run_entry

    sys.exit(run_entry(main))
