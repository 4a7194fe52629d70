"""95 % intervals of LAMA-ckl results: `python -m taalm.intervals docs/results/final --against finetune`.

Results whose names differ in the seed alone (finetune_s42, finetune_s43) are one method. A paired bootstrap (Efron and
Tibshirani 1993, chapter 10) draws TO-LEARN documents, with all facts of a document together, NOT-TO-FORGET facts and
seeds, all with replacement;
every method sees the same draws of facts, and of seeds where it has the same ones. Values are of the final epoch.
Do-nothing, which each method is compared with, is the model as most results begin with it (K-Adapter starts elsewhere).
Read knowledge (--swap_halves true) stands beside Total where every seed of a method has it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from taalm.config import run_entry
from taalm.errors import UserError
from taalm.results import Result, add_only, by_seed, chosen, frame, some_results

DRAWS = 10_000
Found = TypeVar("Found")


@dataclass(frozen=True)
class Method:
    """Final accuracies of all seeds of a method."""

    seeds: tuple[int, ...]
    learned: np.ndarray  # (seeds, TO-LEARN facts)
    kept: np.ndarray  # (seeds, NOT-TO-FORGET facts)
    halves: tuple[np.ndarray, np.ndarray] | None = None  # (seeds, 2, facts): whether adapted to, and the accuracy then

    def totals(self, draws: "Draws") -> np.ndarray:
        """Total Knowledge of every draw, (draws,)."""
        seeds = draws.seeds(self.seeds)
        return (seeds @ self.learned * draws.facts).sum(1) + (seeds @ self.kept * draws.known).sum(1)

    @property
    def total(self) -> float:
        return float(self.learned.mean() + self.kept.mean())

    def read(self, draws: "Draws | None" = None) -> np.ndarray:
        """Read knowledge of every draw, (draws,); without draws that of the results themselves, (1,)."""
        adapted, accuracy = self.halves
        facts = draws.facts if draws else np.full((1, accuracy.shape[-1]), 1.0)
        seeds = draws.seeds(self.seeds) if draws else np.full((1, len(self.seeds)), 1 / len(self.seeds))

        def mean(members: np.ndarray) -> np.ndarray:  # (draws, seeds), over both halves; NaN where one was not drawn
            sums = np.einsum("df,shf->dsh", facts, members * accuracy)
            with np.errstate(invalid="ignore"):
                return (sums / np.einsum("df,shf->dsh", facts, members.astype(float))).mean(-1)

        return (seeds * (mean(adapted) - mean(~adapted))).sum(1)


class Draws:
    """The shares of facts and seeds in every draw; each row sums to 1."""

    def __init__(self, groups: Sequence[str], known: int, draws: int = DRAWS, seed: int = 0):
        rng, self.seed, self.count = np.random.default_rng(seed), seed, draws
        names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        facts = drawn[:, [names[name] for name in groups]].astype(float)
        self.facts = facts / facts.sum(1, keepdims=True)
        self.known = rng.multinomial(known, np.full(known, 1 / known), size=draws) / known
        self._seeds: dict[tuple[int, ...], np.ndarray] = {}

    def seeds(self, seeds: tuple[int, ...]) -> np.ndarray:
        """(draws, seeds); the same for all methods with these seeds, whatever other methods there are."""
        if seeds not in self._seeds:
            rng, count = np.random.default_rng([self.seed, *(seed % 2**64 for seed in seeds)]), len(seeds)
            self._seeds[seeds] = rng.multinomial(count, np.full(count, 1 / count), size=self.count) / count
        return self._seeds[seeds]


def last_entry(result: Result) -> dict:
    """What a result has of its last epoch."""
    history = result["eval_result"]
    return history[max(history, key=int)]


def _final(result: Result, name: str, uuids: Sequence[str]) -> list[float]:
    last = last_entry(result)[name]
    return [last[uuid][0] for uuid in uuids]


def _start(result: Result) -> dict:
    return next(iter(result["eval_result"].values()), {})


def _before(results: Mapping[str, Result]) -> Method:
    """The model as most results begin with it."""
    common = frame(results, "do-nothing")
    found = _start(next(result for result in results.values() if result["framing"]["do-nothing"] == common))
    order = _start(next(iter(results.values())))  # of the facts, as in `methods`
    learned, kept = ([[found[name][uuid][0] for uuid in order[name]]] for name in ("to_learn", "not_to_forget"))
    return Method((0,), np.array(learned), np.array(kept))


def _halves(results: Sequence[Result], uuids: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """What Method.halves holds, or None where a result was made without --swap_halves."""
    if not all(result.get("halves") for result in results):
        return None
    adapted = [[[uuid in half["facts"] for uuid in uuids] for half in result["halves"]] for result in results]
    accuracy = [[_final(half, "to_learn", uuids) for half in result["halves"]] for result in results]
    return np.array(adapted), np.array(accuracy)


def methods(
    results: Mapping[str, Result], groups: Mapping[str, str] | None = None
) -> tuple[dict[str, Method], list[str], list[str]]:
    """The methods by name; the group of every TO-LEARN fact that is drawn together, by default its document; the
    NOT-TO-FORGET facts (uuids), in the order of the methods' columns.

    Raises UserError where results do not ask the same facts.
    """
    for name, result in results.items():
        if "to_learn" not in _start(result):
            raise UserError(f"{name}: no result of LAMA-ckl (python -m taalm.evaluate); it has no outcomes by fact")
    (first_name, first), *others = results.items()
    start = _start(first)
    asked, known = list(start["to_learn"]), list(start["not_to_forget"])
    for name, result in others:
        entry = _start(result)
        if set(entry["to_learn"]) != set(asked) or set(entry["not_to_forget"]) != set(known):
            raise UserError(f"{name} and {first_name} asked other facts; give a folder of results of the same ones")
    found = {
        name: Method(
            tuple(seeds),
            np.array([_final(result, "to_learn", asked) for result in seeds.values()]),
            np.array([_final(result, "not_to_forget", known) for result in seeds.values()]),
            _halves(list(seeds.values()), asked),
        )
        for name, seeds in by_seed(results).items()
    }
    groups = first.get("documents", {}) if groups is None else groups
    return found, [groups.get(uuid, uuid) for uuid in asked], known


def interval(values: np.ndarray) -> str:
    low, high = np.nanquantile(values, [0.025, 0.975])
    return f"[{low:+.3f}, {high:+.3f}]"


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [titles, ["---"] * len(titles), *rows])


def comparing_parser(command: str, description: str) -> argparse.ArgumentParser:
    """The flags of a command that compares the results of a folder."""
    parser = argparse.ArgumentParser(prog=f"python -m taalm.{command}", description=description)
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--against", default="", help="the one that every other is compared with")
    return parser


def chosen_base(found: Mapping[str, Found], against: str) -> Found | None:
    """The method that the others are compared with, None for "". Raises UserError where it is not among them."""
    if against and against not in found:
        raise UserError(f"--against {against}: not here; there are {', '.join(found)}")
    return found.get(against)


def table(results: Mapping[str, Result], against: str = "", groups: Mapping[str, str] | None = None) -> str:
    """A Markdown table with 95 % intervals, the framing rows first: final accuracies, final Total, its differences from
    do-nothing's and `against`'s, and read knowledge, where the results have it. `groups` as in `methods`."""
    found, together, known = methods(results, groups)
    compared = chosen_base(found, against)
    draws = Draws(together, len(known))
    titles = ["method", "seeds", "TO-LEARN", "NOT-TO-FORGET", "final Total", "minus do-nothing, 95 %"]
    titles += [f"minus {against}, 95 %"] if against else []
    reads = {name: (method.read()[0], method.read(draws)) for name, method in found.items() if method.halves}
    titles += ["read knowledge, 95 %"] * bool(reads) + [f"read, minus {against}"] * (against in reads)
    lines: list[list[str]] = []
    frames = {row: frame(results, row) for row in ("do-nothing", "relation-majority")}
    for row, values in frames.items():
        shown = [f"{values[key]:.3f}" if key in values else "" for key in ("top_acc", "nf_acc", "total")]
        lines += [[row, "", *shown, *[""] * (len(titles) - len(shown) - 2)]] if values else []
    before = _before(results)
    unchanged = before.totals(draws)
    base = compared.totals(draws) if compared else None
    for name, method in sorted(found.items(), key=lambda item: -item[1].total):
        totals = method.totals(draws)
        gain = f"{method.total - before.total:+.3f} {interval(totals - unchanged)}"
        parts = [f"{part.mean():.3f}" for part in (method.learned, method.kept)]
        line = [name, str(len(method.seeds)), *parts, f"{method.total:.3f}", gain]
        if base is not None:
            line.append(f"{method.total - found[against].total:+.3f} {interval(totals - base)}")
        value, drawn = reads.get(name, (None, None))
        if reads:
            line.append("" if value is None else f"{value:.3f} {interval(drawn)}")
        if against in reads:
            other, others = reads[against]
            line.append("" if value is None else f"{value - other:+.3f} {interval(drawn - others)}")
        lines.append(line)
    return markdown(titles, lines)


def main(arguments: list[str]) -> None:
    parser = comparing_parser("intervals", "95 % intervals of results.")
    add_only(parser)
    given = parser.parse_args(arguments)
    print(table(chosen(some_results(given.folder), given.only), given.against))


if __name__ == "__main__":
    sys.exit(run_entry(main))
