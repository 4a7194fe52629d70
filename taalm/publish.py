"""Result files to commit: `python -m taalm.publish results/reproduce/final docs/results/final`.

The copies are read by every command as the originals are (results, intervals, plots), are small (outcomes fact by fact
stay for the first, the top and the last epoch alone) and name no path of this machine. There is no text in them: facts
are uuids, documents hashes.
"""

import argparse
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taalm.benchmarks.lama_ckl import top_epoch
from taalm.checkpoint import plain, write_bytes
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.results import Result, some_results

OUTCOMES = ("to_learn", "not_to_forget", "not_to_forget_schematic")


def without_paths(value: Any) -> Any:
    """The same with every absolute path cut to its last part."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _some_outcomes(history: Mapping[int, dict]) -> dict[int, dict]:
    """The history with outcomes fact by fact for the first, the top and the last epoch alone."""
    kept = {min(history), top_epoch(history), max(history)}
    return {
        epoch: {name: value for name, value in entry.items() if epoch in kept or name not in OUTCOMES}
        for epoch, entry in history.items()
    }


def published(result: Result) -> Result:
    """A result of LAMA-ckl, or of a period of TemporalWiki, as it is committed."""
    found = result | {key: without_paths(result[key]) for key in ("config", "phi") if key in result}
    if "halves" in result:
        halves = [half | {"eval_result": _some_outcomes(half["eval_result"])} for half in result["halves"]]
        found |= {"eval_result": _some_outcomes(result["eval_result"]), "halves": halves}
    return plain(found)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.publish", description="Result files to commit.")
    parser.add_argument("folder", type=Path, help="folder of result files of LAMA-ckl or TemporalWiki")
    parser.add_argument("to", type=Path, help="where the copies go")
    given = parser.parse_args(arguments)
    for name, result in some_results(given.folder).items():
        if not ({"documents", "halves"} <= set(result) or "subjects" in result):
            raise UserError(
                f"{given.folder / name}.pkl: no result of LAMA-ckl (python -m taalm.evaluate) or TemporalWiki "
                "(python -m taalm.evaluate_twiki) of this version"
            )
        write_bytes(given.to / f"{name}.pkl", pickle.dumps(published(result), protocol=4))
        print(given.to / f"{name}.pkl")


if __name__ == "__main__":
    sys.exit(run_entry(main))
