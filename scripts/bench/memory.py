"""Peak memory of this process. Linux only."""

import gc
from collections.abc import Callable
from pathlib import Path

from torch import nn


def resident_gib(which: str) -> float:
    """VmRSS (now) or VmHWM (the highest since it was reset) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 2**20


def extra_peak_gib(step: Callable[[], object], *models: nn.Module) -> float:
    """What `step` takes at its highest beside what is resident before it, the models' weights among it."""
    for model in models:
        for parameter in model.parameters():
            parameter.data.sum()  # weights lie in a file until they are read
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident_gib("VmRSS")
    step()
    return resident_gib("VmHWM") - before
