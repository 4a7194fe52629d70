"""targeted: the weights that Train-Attention predicts (TAALM, section 3)."""

import torch
from torch import Tensor

from taalm.errors import UserError
from taalm.text import Batch


def train_attention(phi: torch.nn.Module | None = None):
    """w = phi(document); phi is a `taalm.models.train_attention.TrainAttention`."""
    if phi is None:
        raise UserError("the weighter train_attention needs a trained phi (--phi FOLDER)")

    @torch.no_grad()
    def weights(batch: Batch) -> Tensor:
        return phi.weights(batch.input_ids, batch.attention_mask)

    return weights
