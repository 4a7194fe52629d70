"""TemporalWiki's results with 95 % intervals: `python -m taalm.period_intervals docs/results/twiki --against finetune`.

Results whose names differ in the seed alone (finetune_s42_0 and finetune_s43_0, of period 0) are one method. A paired
bootstrap as in taalm.intervals draws subjects, with all probes of a subject together, and seeds. Values are of the
last epoch of each period. What a method gains on unchanged probes, whose facts no document states, is no knowledge of
the documents: the last column of a period is the difference on changed probes minus that on unchanged ones.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from taalm.benchmarks.temporal_wiki import PERIODS, SETS
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.intervals import Draws, chosen_base, comparing_parser, interval, last_entry, markdown
from taalm.results import Result, by_seed, some_results


@dataclass(frozen=True)
class Losses:
    """A method's object NLL after a period, in nats: (seeds, probes) of each set."""

    seeds: tuple[int, ...]
    of: dict[str, np.ndarray]

    def averages(self) -> np.ndarray:
        """The average of the changed and the unchanged probes' means, by seed, (seeds,)."""
        return np.mean([self.of[name].mean(1) for name in SETS], axis=0)

    @property
    def average(self) -> float:
        return float(self.averages().mean())

    def drawn(self, draws: Mapping[str, Draws]) -> dict[str, np.ndarray]:
        """The mean of each set's probes, (1 + draws,): of the results themselves, then of every draw."""
        seeds = draws[SETS[0]].seeds(self.seeds)
        return {n: np.append(self.of[n].mean(), (seeds @ self.of[n] * draws[n].facts).sum(1)) for n in SETS}

    def __str__(self) -> str:
        """Un / C / average, and the lowest and highest average of several seeds."""
        averages = self.averages()
        spread = f" ({averages.min():.3f} to {averages.max():.3f})" if len(averages) > 1 else ""
        return f"{self.of['unchanged'].mean():.3f} / {self.of['changed'].mean():.3f} / {self.average:.3f}{spread}"


def of_period(results: Mapping[str, Result]) -> tuple[dict[str, Losses], dict[str, Draws]]:
    """The methods of one period, and the draws of its probes. Raises UserError where results asked other probes."""
    (first_name, first), *others = results.items()
    for name, result in others:
        if result["subjects"] != first["subjects"]:
            raise UserError(f"{name} and {first_name} asked other probes; give a folder of results of the same ones")
    methods = {
        method: Losses(
            tuple(seeds), {s: np.array([last_entry(result)[f"nll_{s}"] for result in seeds.values()]) for s in SETS}
        )
        for method, seeds in by_seed(results).items()
    }
    return methods, {name: Draws(first["subjects"][name], 1, seed=index) for index, name in enumerate(SETS)}


def gains(method: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray]) -> list[str]:
    """The average's difference from `base`'s, and the changed probes' minus the unchanged ones', with intervals; both
    as Losses.drawn gives them."""
    changed, unchanged = (method[name] - base[name] for name in ("changed", "unchanged"))
    found = (changed + unchanged) / 2, changed - unchanged
    return [f"{values[0]:+.3f} {interval(values[1:])}" for values in found]


def table(results: Mapping[str, Result], against: str = "") -> str:
    """A Markdown table: what a method has after each period, its average minus `against`'s; the best method first.

    Raises UserError for results of another benchmark, where a method lacks a period that another has,
    or where `against` is not among the methods.
    """
    periods: dict[str, dict[str, Result]] = {}
    for name, result in results.items():
        if "subjects" not in result:
            raise UserError(f"{name}: no result of TemporalWiki (python -m taalm.evaluate_twiki) of this version")
        periods.setdefault(result["period"], {})[name.rpartition("_")[0]] = result
    found = {name: of_period(periods[name]) for name in PERIODS if name in periods}
    names = {method for methods, _ in found.values() for method in methods}
    for period, (methods, _) in found.items():
        if lacking := names - set(methods):
            raise UserError(f"there is no result of {', '.join(sorted(lacking))} for the period {period}")
    titles = ["method", "seeds"]
    order = sorted(names, key=lambda name: sum(methods[name].average for methods, _ in found.values()))
    first = next(iter(found.values()))[0]
    rows = {name: [name, str(len(first[name].seeds))] for name in order}
    for period, (methods, draws) in found.items():
        base = chosen_base(methods, against)
        drawn = base.drawn(draws) if base else {}
        titles += [
            f"{period}: Un / C / average",
            *([f"minus {against}, 95 %", "changed minus unchanged"] if base else []),
        ]
        for name, row in rows.items():
            row.append(str(methods[name]))
            if base:
                row += gains(methods[name].drawn(draws), drawn)
    return markdown(titles, list(rows.values()))


def main(arguments: list[str]) -> None:
    given = comparing_parser("period_intervals", "TemporalWiki's results with 95 % intervals.").parse_args(arguments)
    print(table(some_results(given.folder), given.against))


if __name__ == "__main__":
    sys.exit(run_entry(main))
