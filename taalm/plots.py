"""Pictures of results: `python -m taalm.plots results/lamackl --out curves.png` (or results/online_wiki/month)."""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from taalm.checkpoint import atomic_path
from taalm.config import run_entry
from taalm.errors import UserError
from taalm.results import Result, is_stream, load_results

# Okabe-Ito colours: told apart by colour-blind readers; the line style says the method again
STYLES = {
    "finetune": ("#E69F00", "--"),
    "targeted": ("#0072B2", "-"),
    "oracle": ("#009E73", "-."),
}
OTHER = ("#CC79A7", ":")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")


def learning_curves(results: dict[str, Result], path: Path) -> None:
    """TO-LEARN accuracy, NOT-TO-FORGET accuracy and their sum by epoch, a line per result file."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharex=True, layout="constrained")
    titles = ("TO-LEARN accuracy", "NOT-TO-FORGET accuracy", "Total Knowledge")
    labelled: set[str] = set()
    for result in results.values():
        method = result["method"]
        colour, style = STYLES.get(method, OTHER)
        history = {int(epoch): entry for epoch, entry in result["eval_result"].items()}
        epochs = sorted(history)
        learned = [history[epoch]["acc_changed"] for epoch in epochs]
        kept = [history[epoch]["acc_unchanged"] for epoch in epochs]
        total = [a + b for a, b in zip(learned, kept, strict=True)]
        for axis, values in zip(axes, (learned, kept, total), strict=True):
            axis.plot(epochs, values, style, color=colour, marker="o", markersize=3, linewidth=1.6,
                      label=None if method in labelled else method)  # fmt: skip
        labelled.add(method)
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("share of object tokens right")
    doing_nothing = next(iter(results.values()))["framing"]["do-nothing"]["total"]
    axes[2].axhline(doing_nothing, color="0.4", linewidth=1, label="do-nothing")
    axes[2].legend(fontsize=9)
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", dpi=130)
    plt.close(figure)


def relation_bars(counts: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """How many facts of each relation each file has, a panel per file, the commonest first."""
    figure, axes = plt.subplots(len(counts), 1, figsize=(11, 2.4 * len(counts)), layout="constrained", squeeze=False)
    for axis, (name, found) in zip(axes[:, 0], counts.items(), strict=True):
        ordered = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        bars = axis.bar([code for code, _ in ordered], [count for _, count in ordered], color=COLOURS[0])
        axis.bar_label(bars, fontsize=7)
        axis.set_title(f"{name} ({sum(found.values())} facts)", loc="left", fontsize=10)
        axis.set_ylabel("facts")
        axis.tick_params(axis="x", rotation=60, labelsize=8)
        axis.margins(x=0.01, y=0.15)
    axes[-1, 0].set_xlabel("relation (Wikidata)")
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", dpi=130)
    plt.close(figure)


def stream_curves(results: dict[str, Result], path: Path) -> None:
    """EM, BWT, FWT and KG along the online stream, a line per result."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.5), sharex=True, layout="constrained")
    panels = {
        "em": "EM of this date",
        "bwt": "BWT: what it did to the date before",
        "fwt": "FWT: what it added to its own",
        "kg": "KG: share of all facts so far not known",
    }
    dates = list(dict.fromkeys(date for result in results.values() for date in result["eval_result"]))
    for axis, (key, title) in zip(axes.flat, panels.items(), strict=True):
        for number, (name, result) in enumerate(results.items()):
            values = [result["eval_result"].get(date, {}).get(key) for date in dates]
            axis.plot(
                range(len(dates)), [math.nan if value is None else value for value in values],
                LINES[number % len(LINES)], color=COLOURS[number % len(COLOURS)], marker="o", markersize=3,
                linewidth=1.6, label=name,
            )  # fmt: skip
        axis.set_title(title)
        axis.grid(alpha=0.3)
        shown = range(0, len(dates), max(1, len(dates) // 12))
        axis.set_xticks(list(shown), [dates[index] for index in shown], rotation=45)
    axes[0, 0].legend(fontsize=9)
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", dpi=130)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m taalm.plots", description="Learning and forgetting curves.")
    parser.add_argument("folder", type=Path, help="folder of result files")
    parser.add_argument("--out", type=Path, default=None, help="PNG to write; default <folder>/curves.png")
    given = parser.parse_args(arguments)
    results = load_results(given.folder)
    if not results:
        raise UserError(f"{given.folder}: no result files (*.pkl) here; the scripts under scripts/eval make them")
    path = given.out or given.folder / "curves.png"
    streams = {name: result for name, result in results.items() if is_stream(result)}
    if streams:
        stream_curves(streams, path)
    else:
        learning_curves(results, path)
    print(f"curves in {path}")


if __name__ == "__main__":
    sys.exit(run_entry(main))
