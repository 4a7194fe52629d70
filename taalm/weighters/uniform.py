"""finetune: every token counts the same."""

from torch import Tensor

from taalm.text import Batch


def uniform(phi: None = None):
    """w = 1."""

    def weights(batch: Batch) -> Tensor:
        return batch.attention_mask.float()

    return weights
