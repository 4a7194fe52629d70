"""Scalars of a run to Weights & Biases or TensorBoard, by accelerate's trackers; the names are the same in both.

train/loss, train/learning_rate, train/tokens_per_s by update; eval/<number> by epoch; phi/<number> by outer step;
stream/<number> by date.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate.tracking import TensorBoardTracker, WandBTracker

from taalm import processes
from taalm.checkpoint import plain
from taalm.run_folder import flatten

Log = Callable[[Mapping[str, Any], int], None]  # (values by name, step)


@dataclass
class TrackConfig:
    """Where a run's scalars go."""

    to: Literal["none", "wandb", "wandb_offline", "tensorboard"] = "none"
    """Weights & Biases (offline: a folder that `wandb sync` sends later), TensorBoard, or nowhere."""
    project: str = "taalm"
    """The project's name at Weights & Biases."""


KEPT = ("track.to", "track.project")  # settings that a run may change when it goes on


def no_log(values: Mapping[str, Any], step: int) -> None:
    """Tracks nothing."""


def scalars(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among some values, nested ones with dots, under a prefix."""
    flat = flatten(dict(values))
    return {f"{prefix}/{key}": value for key, value in flat.items() if isinstance(value, (int, float))}


def start(config: TrackConfig, name: str, folder: Path, settings: Any) -> Log:
    """Begin to track the run `name`, or go on with it; what is written lies in `folder`. The main process tracks."""
    if config.to == "none" or not processes.is_main():
        return no_log
    if config.to == "tensorboard":
        tracker: Any = TensorBoardTracker("tensorboard", folder)
        tracker.start()
        return lambda values, step: tracker.log(dict(values), step=step)
    folder.mkdir(parents=True, exist_ok=True)
    mode = "offline" if config.to == "wandb_offline" else "online"
    tracker = WandBTracker(config.project, name=name, id=name, resume="allow", dir=str(folder), mode=mode)
    tracker.start()
    tracker.store_init_configuration(flatten(plain(asdict(settings))))
    return lambda values, step: tracker.log(dict(values), step=step)
