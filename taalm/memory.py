"""Memory of this process: resident, as Linux counts it, or of a GPU."""

import contextlib
import resource
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident_gib(which: str) -> float:
    """VmRSS (now) or VmHWM (the highest so far, or since it was reset)."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(which)) / 2**20


def reset_peak(device: torch.device) -> None:
    """Let the peak count from now on, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        CLEAR.write_text("5")  # VmHWM starts anew


def peak_gib(device: torch.device) -> float:
    """Peak memory of the GPU that is computed on, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if STATUS.is_file():  # getrusage has the peak of the process that started this one in it
        return resident_gib("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
