"""RHO-1 (Lin et al. 2024, section 2.2) and its relatives: train on the tokens with the highest excess loss.

- rho: excess = l_theta - l_ref, the reference fine-tuned on TA-train documents;
- rho_theta0: the reference is theta before training (TAALM's use);
- sstoken_rel: excess = l_theta0 - l_theta (arXiv 2510.18250, its relative loss, without attention).

The share `keep` of the update's tokens is kept, over all its documents together; what is kept has weight 1. Where the
excess is 0 everywhere, as at step 0 with theta_0 for reference, nothing can be ranked and all weights are 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import Tensor

from taalm.errors import UserError
from taalm.losses import target_mask
from taalm.shares import Share
from taalm.text import Batch
from taalm.weighters.documents import Key, key, keys
from taalm.weighters.material import Material

NO_EXCESS = 0.01  # nats, mean; as far as two passes of one model may differ by rounding (bfloat16)


@dataclass
class RhoConfig:
    """RHO-1, for the methods rho, rho_theta0 and sstoken_rel."""

    keep: Share = 0.6
    """Share of an update's tokens that is trained on."""
    reference_epochs: PositiveInt = 1
    """rho: epochs of the reference model on the TA-train documents."""
    reference_lr: NonNegativeFloat = 3e-4
    """rho: learning rate of the reference model."""


class Selective:
    """A weighter that sees theta's present losses: (the documents of an update, their l_t) -> weights."""

    def __init__(self, reference: dict[Key, Tensor], keep: float, sign: float):
        self.reference, self.keep, self.sign = reference, keep, sign

    def select(self, batch: Batch, losses: Tensor) -> Tensor:
        """Weights (B, T) of 0 and 1: exactly round(keep * real targets) ones in all, at least one."""
        real = target_mask(batch.attention_mask).bool()
        reference = torch.cat([self.reference[row] for row in keys(batch)]).to(losses.device)
        excess = self.sign * (losses[real] - reference)
        chosen = torch.ones_like(excess)
        if excess.abs().mean() > NO_EXCESS:
            count = max(1, round(self.keep * len(excess)))
            chosen = torch.zeros_like(excess)
            chosen[excess.topk(count).indices] = 1.0
        weights = torch.zeros(batch.attention_mask.shape, dtype=chosen.dtype, device=chosen.device)
        weights[:, 1:][real] = chosen
        return weights


def _selective(source: str, sign: float) -> Callable[[Material], Selective]:
    def make(material: Material) -> Selective:
        losses = getattr(material, source)
        if losses is None:
            raise UserError(f"this weighter needs the {source.replace('_', ' ')} of the documents")
        reference = dict(zip(map(key, material.documents), losses(), strict=True))
        return Selective(reference, material.keep, sign)

    return make


rho = _selective("reference_losses", 1.0)
rho_theta0 = _selective("base_losses", 1.0)
sstoken_rel = _selective("base_losses", -1.0)
