"""Several warm starts, of which the best goes on: one start's phi differs much from another's (experiments.md, 30)."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from taalm.checkpoint import load_parameters, under
from taalm.models.train_attention import TrainAttention

PLACE = Path("phi's warm start")


def _copies(phi: TrainAttention) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in phi.trainable().items()}


class Starts:
    """phi as it was before its first warm start, and as the best one so far has left it."""

    def __init__(self, phi: TrainAttention):
        self.phi, self.first = phi, _copies(phi)
        self.best: dict[str, Tensor] = {}
        self.found = -1.0

    def end(self, found: float, last: bool) -> None:
        """A start has ended whose phi is `found` good: begin the next one, or after the last take the best one's phi.

        Of equally good ones the earlier is kept.
        """
        if found > self.found:
            self.best, self.found = _copies(self.phi), found
        load_parameters(self.phi.trainable(), self.best if last else self.first, PLACE)

    def state(self) -> dict[str, Tensor]:
        return {f"best/{name}": value for name, value in self.best.items()}

    def load(self, saved: Mapping[str, Tensor], found: float) -> None:
        self.best, self.found = dict(under(saved, "best/")), found
