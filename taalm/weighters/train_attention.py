"""targeted: the weights that Train-Attention predicts (TAALM, section 3)."""

import torch
from torch import Tensor

from taalm.errors import UserError
from taalm.text import Batch


def train_attention(phi: torch.nn.Module | None = None):
    """w = phi(document); phi is a frozen `taalm.models.train_attention.TrainAttention`, asked once per document."""
    if phi is None:
        raise UserError("the weighter train_attention needs a trained phi (--phi FOLDER)")
    known: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def weights(batch: Batch) -> Tensor:
        pairs = zip(batch.input_ids, batch.attention_mask, strict=True)
        rows = [tuple(ids[mask.bool()].tolist()) for ids, mask in pairs]
        if not all(row in known for row in rows):
            found = phi.weights(batch.input_ids, batch.attention_mask)
            for row, values, mask in zip(rows, found, batch.attention_mask, strict=True):
                known[row] = values[mask.bool()].clone()
        result = torch.zeros_like(batch.attention_mask, dtype=known[rows[0]].dtype)
        result[batch.attention_mask.bool()] = torch.cat([known[row] for row in rows])
        return result

    return weights
