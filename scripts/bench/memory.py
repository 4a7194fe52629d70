"""Peak memory of a process, and processes of their own to measure it in. Linux only."""

import gc
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import nn

from taalm.memory import reset_peak, resident_gib


def extra_peak_gib(step: Callable[[], object], *models: nn.Module) -> float:
    """What `step` takes at its highest beside what is resident before it, the models' weights among it."""
    for model in models:
        for parameter in model.parameters():
            parameter.data.sum()  # weights lie in a file until they are read
    gc.collect()
    reset_peak(torch.device("cpu"))
    before = resident_gib("VmRSS")
    step()
    return resident_gib("VmHWM") - before


def own_process(module: str, *more: str) -> str:
    """The last line that `python -m module` prints, given this command's arguments and more."""
    command = [sys.executable, "-W", "ignore", "-m", module, *sys.argv[1:], *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.splitlines()[-1]
