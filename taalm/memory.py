"""Resident memory of this process, as Linux counts it."""

from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_gib(which: str) -> float:
    """VmRSS (now) or VmHWM (the highest so far, or since it was reset)."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(which)) / 2**20
