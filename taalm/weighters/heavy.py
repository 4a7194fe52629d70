"""Dropping low weights: how many of a document's tokens need to weigh anything at all."""

from collections.abc import Callable

from torch import Tensor

from taalm.text import Batch


class OnlyHeavy:
    """A weighter whose tokens below `share` of their document's heaviest target weigh nothing (the head skips them)."""

    def __init__(self, weigh: Callable[[Batch], Tensor], share: float):
        self.weigh, self.share = weigh, share

    def __call__(self, batch: Batch) -> Tensor:
        weights = self.weigh(batch)
        return weights * (weights >= self.share * weights[:, 1:].amax(1, keepdim=True))
