"""Ablations of phi side by side: `python -m taalm.ablations docs/results/ablations --against preset`.

What phi's weights are on documents that it never saw, what a model learns by them, and the final accuracies beside the
preset's, with the intervals of taalm.intervals. `python -m taalm.reproduce --kind ablations` makes the results.
"""

import sys
from collections.abc import Mapping

from taalm.config import run_entry
from taalm.intervals import Draws, chosen_base, comparing_parser, interval, markdown, methods
from taalm.results import Result, method_of, some_results

TITLES = ["ablation", "weight ratio", "uncommon", "gap closed", "TO-LEARN", "NOT-TO-FORGET", "final Total"]
RATIOS = ("object_ratio", "object_ratio_uncommon")


def table(results: Mapping[str, Result], against: str = "") -> str:
    """A Markdown table, by final Total, the one that the others are compared with first.

    The columns of phi are of held-out documents: the object-to-mean weight ratio (median and quartiles), of uncommon
    objects too, and how much of the gap in task loss, once documents are learned with equal weights or the oracle's,
    its weights close. Raises UserError where `against` is not among the results.
    """
    found, documents, known = methods(results)
    base = chosen_base(found, against)
    reports = {method_of(name): result.get("phi_report", {}) for name, result in results.items()}
    draws = Draws(documents, len(known))
    unchanged = base.totals(draws) if base else None
    titles = [*TITLES, *([f"minus {against}, 95 %"] if against else [])]
    lines: list[list[str]] = []
    for name, method in sorted(found.items(), key=lambda item: (item[0] != against, -item[1].total)):
        held = reports[name].get("held_out", {})
        line = [name]
        line += ["{median:.1f} ({q1:.1f}, {q3:.1f})".format(**held[key]) if held.get(key) else "" for key in RATIOS]
        line += [_gap_closed(reports[name].get("task_loss_after_learning", {}))]
        line += [f"{value:.3f}" for value in (method.learned.mean(), method.kept.mean(), method.total)]
        if base:
            line.append(f"{method.total - base.total:+.3f} {interval(method.totals(draws) - unchanged)}")
        lines.append(line)
    return markdown(titles, lines)


def _gap_closed(loss: Mapping[str, float]) -> str:
    """From the task loss after learning with each weights; objectives and inner steps differ in these, not in it."""
    gap = loss["uniform"] - loss["oracle"] if loss else 0.0
    return f"{(loss['uniform'] - loss['train_attention']) / gap:.2f}" if gap else ""


def main(arguments: list[str]) -> None:
    given = comparing_parser("ablations", "Ablations of phi side by side.").parse_args(arguments)
    print(table(some_results(given.folder), given.against))


if __name__ == "__main__":
    sys.exit(run_entry(main))
