"""oracle: only the object's tokens, at the place of [MASK] in the document (TAALM, section 5)."""

from torch import Tensor

from taalm.text import Batch
from taalm.weighters.material import Material


def oracle(material: Material):
    """w = 1 on the tokens of the document's marked span, else 0."""

    def weights(batch: Batch) -> Tensor:
        return batch.answer.float()

    return weights
