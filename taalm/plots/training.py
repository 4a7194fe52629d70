"""How Train-Attention was trained, from the log of its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from taalm.errors import UserError
from taalm.facts import read_jsonl
from taalm.plots.style import styles

Log = list[dict[str, Any]]


def read_logs(folder: str | Path) -> dict[str, Log]:
    """The logs of all runs under a folder, by name. Raises UserError for a broken line, or where there is none."""
    found = {}
    for path in sorted(Path(folder).glob("*/log.jsonl")):
        rows = []
        for where, row in read_jsonl(path):
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise UserError(f"{where}: no row of a training log")
            rows.append(row)
        if rows:
            found[path.parent.name] = rows
    if not found:
        raise UserError(f"{folder}: no */log.jsonl; the scripts under scripts/train_TA write them")
    return found


def series(log: Sequence[Mapping[str, Any]], *keys: str) -> tuple[list[int], list[float]]:
    """(steps, values) of a number that some rows have; several keys lead into a nested row."""
    steps, values = [], []
    for row in log:
        value: Any = row
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            steps.append(row["step"])
            values.append(float(value))
    return steps, values


PANELS = {
    "loss of the warm start (cross-entropy, nats)": ("fit_loss",),
    "task loss after the inner step (nats)": ("task_loss",),
    "object-to-mean ratio on validation facts": ("valid", "object_ratio", "median"),
    "mean weight": ("mean_weight",),
    "mean logit": ("mean_logit",),
    "gradient norm": ("gradient_norm",),
}


def drifts(logs: Mapping[str, Log]) -> bool:
    """Whether any run's mean weight leaves 1 by more than a twentieth."""
    return any(abs(value - 1) > 0.05 for log in logs.values() for value in series(log, "mean_weight")[1])


def training_history(logs: Mapping[str, Log]) -> Figure:
    """Losses, validation, mean weight and gradient norm by outer step, a line per run."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 6.5), sharex=True, layout="constrained")
    looks = styles(logs)
    for axis, (title, keys) in zip(axes.flat, PANELS.items(), strict=True):
        for name, log in logs.items():
            steps, values = series(log, *keys)
            colour, line = looks[name]
            axis.plot(steps, values, line, color=colour, linewidth=1.4, label=name,
                      marker="o" if keys[0] == "valid" else None, markersize=4)  # fmt: skip
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    axes[1, 0].set_ylim(0.5, 1.5)  # 1 by construction with softmax weights
    axes[1, 0].autoscale(enable=drifts(logs), axis="y")
    axes[1, 2].set_yscale("log")
    for axis in axes[1]:
        axis.set_xlabel("outer step")
    figure.legend(*axes[1, 2].get_legend_handles_labels(), loc="outside right upper", fontsize=9)
    return figure
