"""LAMA-ckl: curves by epoch, the learning-against-forgetting plane, facts gained and lost, relations of the files."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from taalm.plots.style import COLOURS, styles
from taalm.results import Result, frame, method_of

Curve = dict[int, float]


def by_method(results: Mapping[str, Result]) -> dict[str, list[Result]]:
    """Results of one name together, whose seeds differ: targeted_s42 and targeted_s43 are targeted."""
    found: dict[str, list[Result]] = {}
    for name, result in results.items():
        found.setdefault(method_of(name), []).append(result)
    return found


def curve(result: Result, key: str) -> Curve:
    """epoch -> a number of that epoch; `total` is the sum of both accuracies."""
    history = {int(epoch): entry for epoch, entry in result["eval_result"].items()}
    if key == "total":
        return {epoch: entry["acc_changed"] + entry["acc_unchanged"] for epoch, entry in sorted(history.items())}
    return {epoch: entry[key] for epoch, entry in sorted(history.items())}


def mean_curve(curves: Sequence[Curve]) -> tuple[list[int], list[float], list[float], list[float]]:
    """(epochs, mean, least, greatest) over seeds, of the epochs that all have."""
    epochs = sorted(set.intersection(*(set(found) for found in curves)))
    columns = [[found[epoch] for found in curves] for epoch in epochs]
    return epochs, [fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns]


def learning_curves(results: Mapping[str, Result]) -> Figure:
    """TO-LEARN accuracy, NOT-TO-FORGET accuracy and their sum by epoch: a line per method, its seeds' spread."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharex=True, layout="constrained")
    panels = {"acc_changed": "TO-LEARN accuracy", "acc_unchanged": "NOT-TO-FORGET accuracy", "total": "Total Knowledge"}
    found = by_method(results)
    looks = styles(found)
    for axis, (key, title) in zip(axes, panels.items(), strict=True):
        for method, same in found.items():
            colour, line = looks[method]
            epochs, mean, least, most = mean_curve([curve(result, key) for result in same])
            seeds = f" ({len(same)} seeds)" if len(same) > 1 else ""
            axis.plot(epochs, mean, line, color=colour, marker="o", markersize=3, linewidth=1.6, label=method + seeds)
            if len(same) > 1:
                axis.fill_between(epochs, least, most, color=colour, alpha=0.15, linewidth=0)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("share of object tokens right")
    axes[2].axhline(frame(results, "do-nothing")["total"], color="0.4", linewidth=1, label="do-nothing")
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure


def plane(results: Mapping[str, Result]) -> Figure:
    """What is learned against what is kept: a path over the epochs for each method, seeds averaged, its end marked."""
    figure, axis = plt.subplots(figsize=(8.5, 5.5), layout="constrained")
    found = by_method(results)
    looks = styles(found)
    for method, same in found.items():
        colour, line = looks[method]
        _, learned, *_ = mean_curve([curve(result, "acc_changed") for result in same])
        _, kept, *_ = mean_curve([curve(result, "acc_unchanged") for result in same])
        axis.plot(learned, kept, line, color=colour, linewidth=1.4, label=method)
        axis.plot(learned[-1:], kept[-1:], "o", color=colour, markersize=7)
    low, high = axis.get_ylim()
    for total in (0.9, 1.0, 1.1, 1.2, 1.3):
        ends = [(x, total - x) for x in (0.0, axis.get_xlim()[1])]
        axis.plot(*zip(*ends, strict=True), color="0.8", linewidth=0.8, zorder=0)
    axis.set_ylim(low, high)
    axis.set_xlabel("TO-LEARN accuracy (share of object tokens right)")
    axis.set_ylabel("NOT-TO-FORGET accuracy (same)")
    axis.set_title("From epoch 0 to the last (dot); grey lines: equal Total Knowledge", fontsize=10, loc="left")
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def gained_and_lost(result: Result, before: int, after: int) -> dict[str, tuple[list[str], list[str]]]:
    """For each set of facts: the uuids answered whole after and not before, and the other way round."""
    history = {int(epoch): entry for epoch, entry in result["eval_result"].items()}
    found = {}
    for name in ("to_learn", "not_to_forget", "not_to_forget_schematic"):
        whole = [{u for u, (accuracy, _) in history[e].get(name, {}).items() if accuracy == 1} for e in (before, after)]
        found[name] = (sorted(whole[1] - whole[0]), sorted(whole[0] - whole[1]))
    return found


def gains_and_losses(results: Mapping[str, Result], before: int = 0, after: int | None = None) -> Figure:
    """How many facts each result gained and lost between two epochs (default the first and the last)."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.35 * len(results) + 1.8), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("to_learn", "not_to_forget"), strict=True):
        for place, result in enumerate(results.values()):
            last = max(map(int, result["eval_result"])) if after is None else after
            gained, lost = gained_and_lost(result, before, last)[name]
            axis.barh(place, len(gained), color=COLOURS[0], label="gained" if not place else None)
            axis.barh(place, -len(lost), color=COLOURS[1], label="lost" if not place else None)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_title(name.replace("_", "-").upper())
        axis.set_xlabel("facts answered whole")
        axis.grid(alpha=0.3, axis="x")
    axes[0].set_yticks(range(len(results)), list(results))
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure


def relation_bars(counts: Mapping[str, Mapping[str, int]]) -> Figure:
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
    return figure
