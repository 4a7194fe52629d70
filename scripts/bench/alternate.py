"""Timing several ways to do the same thing, in turns, so that what slows the machine slows them all."""

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")


def alternate(ways: dict[str, Callable[[], Found]], repeats: int) -> tuple[dict[str, list[float]], dict[str, Found]]:
    """Seconds of each way, `repeats` rounds of all after one that does not count; and what each gave."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds, found
