"""Known-token masking: what theta_0 predicts already teaches nothing, so it gets weight 0 under any weighter."""

import math
from collections.abc import Sequence

from torch import Tensor

from taalm.text import Batch, Encoded
from taalm.weighters.documents import fixed


class WithoutKnown:
    """A weighter with the targets left out to which theta_0 gives a probability of at least `above`."""

    def __init__(self, weigh, documents: Sequence[Encoded], base_losses: Sequence[Tensor], above: float):
        self.weigh = weigh
        self.unknown = fixed(documents, [(losses > -math.log(above)).float() for losses in base_losses])

    def __call__(self, batch: Batch) -> Tensor:
        return self.weigh(batch) * self.unknown(batch)


class SelectWithoutKnown(WithoutKnown):
    """The same for a weighter that sees theta's present losses: it selects first, what is known is left out then."""

    def select(self, batch: Batch, losses: Tensor) -> Tensor:
        return self.weigh.select(batch, losses) * self.unknown(batch)
