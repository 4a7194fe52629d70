"""Colours and lines that belong to methods, and how a picture is written."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from taalm.checkpoint import atomic_path

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", ":")
FIRST = ("targeted", "finetune", "oracle")  # these look the same in every picture


def styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """method -> (colour, line style), another for each."""
    known = list(methods)
    ordered = [*(method for method in FIRST if method in known), *sorted(set(known) - set(FIRST))]
    first = [FIRST.index(method) if method in FIRST else None for method in ordered]
    others = iter(range(len(FIRST), len(FIRST) + len(ordered)))
    places = [next(others) if place is None else place for place in first]
    return {
        method: (COLOURS[place % len(COLOURS)], LINES[(place + place // len(COLOURS)) % len(LINES)])
        for method, place in zip(ordered, places, strict=True)
    }


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    with atomic_path(path) as scratch:
        figure.savefig(scratch, format="png", dpi=130)
    plt.close(figure)
