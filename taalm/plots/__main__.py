"""`python -m taalm.plots results/lamackl --out curves.png`: a picture of a folder of results, whatever they are of."""

import argparse
import sys
from pathlib import Path

from taalm.config import run_entry
from taalm.errors import UserError
from taalm.plots.kinds import pictures
from taalm.plots.style import write
from taalm.results import add_only, chosen, some_results


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.plots", description="Learning and forgetting curves.")
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--kind", default="", help="curves, plane or gains of LAMA-ckl; default the main picture")
    add_only(parser)
    parser.add_argument("--out", type=Path, default=None, help="PNG to write; default <folder>/<kind>.png")
    given = parser.parse_args(arguments)
    results = chosen(some_results(given.folder), given.only)
    kinds = pictures(results)
    if given.kind and given.kind not in kinds:
        raise UserError(f"--kind {given.kind}: of these results there are {', '.join(kinds)}")
    kind = given.kind or next(iter(kinds))
    path = given.out or given.folder / f"{kind}.png"
    write(kinds[kind](results), path)
    print(f"{kind} in {path}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
