"""TemporalWiki's results with 95 % intervals: `python -m taalm.period_intervals docs/results/twiki --against finetune`.

Results whose names differ in the seed alone (finetune_s42_0 and finetune_s43_0, of period 0) are one method. A paired
bootstrap as in taalm.intervals draws subjects, with all probes of a subject together, and seeds. Values are of the
last epoch of each period.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from taalm.benchmarks.temporal_wiki import PERIODS, SETS
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.intervals import Draws, interval
from taalm.results import Result, by_seed, some_results


@dataclass(frozen=True)
class Losses:
    """A method's object NLL after a period, in nats: (seeds, probes) of each set."""

    seeds: tuple[int, ...]
    of: dict[str, np.ndarray]

    def averages(self) -> np.ndarray:
        """The average of the changed and the unchanged probes' means, by seed, (seeds,)."""
        return np.mean([self.of[name].mean(1) for name in SETS], axis=0)

    def drawn(self, draws: Mapping[str, Draws]) -> np.ndarray:
        """That average of every draw, (draws,)."""
        seeds = draws[SETS[0]].seeds(self.seeds)
        return np.mean([(seeds @ self.of[name] * draws[name].facts).sum(1) for name in SETS], axis=0)

    def __str__(self) -> str:
        """Un / C / average, and the lowest and highest average of several seeds."""
        averages = self.averages()
        spread = f" ({averages.min():.3f} to {averages.max():.3f})" if len(averages) > 1 else ""
        return f"{self.of['unchanged'].mean():.3f} / {self.of['changed'].mean():.3f} / {averages.mean():.3f}{spread}"


def of_period(results: Mapping[str, Result]) -> tuple[dict[str, Losses], dict[str, Draws]]:
    """The methods of one period, and the draws of its probes. Raises UserError where results asked other probes."""
    (first_name, first), *others = results.items()
    for name, result in others:
        if result["subjects"] != first["subjects"]:
            raise UserError(f"{name} and {first_name} asked other probes; give a folder of results of the same ones")

    def last(result: Result) -> dict:
        return result["eval_result"][max(result["eval_result"], key=int)]

    methods = {
        method: Losses(
            tuple(seeds), {s: np.array([last(result)[f"nll_{s}"] for result in seeds.values()]) for s in SETS}
        )
        for method, seeds in by_seed(results).items()
    }
    return methods, {name: Draws(first["subjects"][name], 1, seed=index) for index, name in enumerate(SETS)}


def table(results: Mapping[str, Result], against: str = "") -> str:
    """A Markdown table: what a method has after each period, its average minus `against`'s; the best method first.

    Raises UserError for results of another benchmark, or where a method lacks a period that another has.
    """
    periods: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        if "subjects" not in result:
            raise UserError(f"{name}: no result of TemporalWiki (python -m taalm.evaluate_twiki) of this version")
        periods.setdefault(result["period"], {})[name.rpartition("_")[0]] = result
    found = {name: of_period(periods[name]) for name in PERIODS if name in periods}
    names = {method for methods, _ in found.values() for method in methods}
    for period, (methods, _) in found.items():
        if lacking := (names | ({against} - {""})) - set(methods):
            raise UserError(f"there is no result of {', '.join(sorted(lacking))} for the period {period}")
    titles = ["method", "seeds"]
    for period in found:
        titles += [f"{period}: Un / C / average", *([f"minus {against}, 95 %"] if against else [])]
    lines = [titles, ["---"] * len(titles)]
    for name in sorted(names, key=lambda name: sum(methods[name].averages().mean() for methods, _ in found.values())):
        line = [name, str(len(next(iter(found.values()))[0][name].seeds))]
        for methods, draws in found.values():
            line.append(str(methods[name]))
            if against:
                gain = methods[name].averages().mean() - methods[against].averages().mean()
                line.append(f"{gain:+.3f} {interval(methods[name].drawn(draws) - methods[against].drawn(draws))}")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m taalm.period_intervals", description="TemporalWiki's results with 95 % intervals."
    )
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--against", default="", help="the method that every other one is compared with")
    given = parser.parse_args(arguments)
    print(table(some_results(given.folder), given.against))


if __name__ == "__main__":
    sys.exit(run_entry(main))
