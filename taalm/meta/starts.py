"""Several warm starts, of which the best goes on: one start's phi differs much from another's (experiments.md, 30)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from taalm.checkpoint import load_parameters, under
from taalm.models.train_attention import TrainAttention


def _copies(phi: TrainAttention) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in phi.trainable().items()}


class Starts:
    """phi as it was before its first warm start, and as the best one so far has left it."""

    def __init__(self, phi: TrainAttention, state_file: Path):
        self.phi, self.state_file, self.first = phi, state_file, _copies(phi)
        self.best: dict[str, Tensor] = {}
        self.found = -1.0

    def end(self, found: float, last: bool) -> None:
        """A start has ended whose phi is `found` good: begin the next one, or after the last take the best one's phi.

        Of equally good ones the earlier is kept.
        """
        if found > self.found:
            self.best, self.found = _copies(self.phi), found
        load_parameters(self.phi.trainable(), self.best if last else self.first, self.state_file)

    def state(self) -> dict[str, Tensor]:
        if not self.best:
            return {}
        found = torch.tensor(self.found, dtype=torch.float64)
        return {"found": found} | {f"best/{name}": value for name, value in self.best.items()}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        self.best = under(saved, "best/")
        self.found = float(saved.get("found", -1.0))
