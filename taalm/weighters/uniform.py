"""finetune: every token counts the same."""

from torch import Tensor

from taalm.text import Batch
from taalm.weighters.material import Material


def uniform(material: Material):
    """w = 1."""

    def weights(batch: Batch) -> Tensor:
        return batch.attention_mask.float()

    return weights
