"""Peak memory of this process. Linux only."""

import gc
from collections.abc import Callable
from pathlib import Path

from torch import nn

from taalm.memory import resident_gib


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
