"""SIGTERM (a batch system's notice, `kill`) ends a run after its state is written; a second one ends it at once."""

import signal
import threading
from collections.abc import Callable
from typing import Any

from taalm import processes

EXIT_CODE = 128 + signal.SIGTERM  # what shells report for a process that SIGTERM ended


class Stopped(SystemExit):
    """The run was asked to stop, and its state is written."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


_asked = False


def _ask(*_: Any) -> None:
    global _asked
    _asked = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def listen() -> None:
    """From now on SIGTERM is kept for `obey`."""
    global _asked
    _asked = False
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _ask)


def obey(save: Callable[[], None]) -> None:
    """Between two updates: where any process of the run was asked to stop, `save()` and raise Stopped."""
    asked = processes.totals(float(_asked))[0] if processes.count() > 1 else _asked
    if asked:
        save()
        print("stopped; what was done is kept: run the same command again to go on", flush=True)
        raise Stopped
