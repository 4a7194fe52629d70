"""readout: a weighter's weights times those that a linear probe reads from theta_0's states (taalm/readout.py)."""

from collections.abc import Callable, Sequence

from torch import Tensor

from taalm.text import Batch, Encoded
from taalm.weighters.documents import fixed


class TimesReadout:
    """w = w_other^power * w_readout; `weights` are the readout's of every document's targets, (T - 1,) each."""

    def __init__(
        self, weigh: Callable[[Batch], Tensor], documents: Sequence[Encoded], weights: Sequence[Tensor], power: float
    ):
        self.weigh, self.readout, self.power = weigh, fixed(documents, weights), power

    def __call__(self, batch: Batch) -> Tensor:
        return self.weigh(batch) ** self.power * self.readout(batch)
