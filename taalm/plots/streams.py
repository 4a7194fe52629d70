"""TemporalWiki's periods and the online wiki stream's dates."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from taalm.plots.style import styles
from taalm.results import Result

PANELS = {
    "em": "EM of this date",
    "bwt": "BWT: what it did to the date before",
    "fwt": "FWT: what it added to its own",
    "kg": "KG: share of all facts so far not known",
}


def stream_curves(results: Mapping[str, Result]) -> Figure:
    """EM, BWT, FWT and KG along the online stream, a line per result."""
    figure, axes = plt.subplots(2, 2, figsize=(12, 6.5), sharex=True, layout="constrained")
    dates = list(dict.fromkeys(date for result in results.values() for date in result["eval_result"]))
    looks = styles(results)
    for axis, (key, title) in zip(axes.flat, PANELS.items(), strict=True):
        for name, result in results.items():
            found = [result["eval_result"].get(date, {}).get(key) for date in dates]
            values = [math.nan if value is None else value for value in found]
            colour, line = looks[name]
            axis.plot(range(len(dates)), values, line, color=colour, marker="o", markersize=3, lw=1.6, label=name)
        axis.set_title(title)
        axis.set_ylabel("share of facts")
        axis.grid(alpha=0.3)
        shown = range(0, len(dates), max(1, len(dates) // 12))
        axis.set_xticks(list(shown), [dates[index] for index in shown], rotation=45)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure


def periods_of(results: Mapping[str, Result]) -> dict[str, list[Result]]:
    """TemporalWiki results by run: <name>_0 to <name>_2 are the periods of <name>."""
    found: dict[str, list[Result]] = {}
    for name, result in results.items():
        found.setdefault(name.rpartition("_")[0], []).append(result)
    return found


def period_bars(results: Mapping[str, Result]) -> Figure:
    """Mean object NLL on unchanged and changed probes and their average after each period; and before the stream."""
    runs = periods_of(results)
    looks = styles(runs)
    step = 0.8 / max(1, len(runs))
    names = [result["period"] for result in max(runs.values(), key=len)]
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), sharey=True, layout="constrained")
    for axis, key in zip(axes, ("unchanged", "changed", "average"), strict=True):
        for number, (name, periods) in enumerate(runs.items()):
            places = [index + number * step for index in range(len(periods))]
            heights = [result["summary"][key] for result in periods]
            axis.bar(places, heights, step, color=looks[name][0], label=name)
        before = next(iter(runs.values()))[0]["before"][key]
        axis.axhline(before, color="0.3", linestyle=":", label="before the stream")
        axis.set_xticks([index + 0.4 - step / 2 for index in range(len(names))], names)
        axis.set_title(key)
        axis.set_xlabel("period")
    axes[0].set_ylabel("mean NLL of the object's tokens (nats)")
    values = [result["summary"][key] for result in results.values() for key in ("unchanged", "changed")]
    axes[0].set_ylim(bottom=max(0.0, min(values) * 0.9))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure
