"""`python -m taalm.plots results/lamackl --out curves.png`: the curves of a folder of results, whatever they are of."""

import argparse
import sys
from pathlib import Path

from taalm.config import run_entry
from taalm.plots.kinds import pictures
from taalm.plots.style import write
from taalm.results import some_results


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.plots", description="Learning and forgetting curves.")
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--out", type=Path, default=None, help="PNG to write; default <folder>/curves.png")
    given = parser.parse_args(arguments)
    results = some_results(given.folder)
    path = given.out or given.folder / "curves.png"
    draw = next(iter(pictures(results).values()))
    write(draw(results), path)
    print(f"curves in {path}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
