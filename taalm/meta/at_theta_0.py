"""What theta_0 makes of a text, computed once: every inner loop starts there, whatever the weights.

Kept of a text are the states that enter theta's first trained layer and, of a document, l_t and its slope at theta_0
(taalm.head_loss), which saves the first inner step all products with the head. A text is computed by itself, so that
what is kept does not depend on the batch in which it came first, and a resumed run repeats the uninterrupted one.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from taalm.head_loss import Known
from taalm.meta.inner import Tensors
from taalm.models.split import SplitModel
from taalm.text import Batch
from taalm.weighters.documents import Key, keys

MOST_BYTES = 2**30  # kept in all; texts beyond are computed whenever they come


class AtTheta0:
    """Hands out what theta_0 makes of the texts of a batch."""

    def __init__(self, split: SplitModel, theta_0: Tensors):
        self.split, self.theta_0 = split, theta_0
        self.states: dict[Key, Tensor] = {}
        self.losses: dict[Key, Known] = {}
        self.bytes = 0

    def with_states(self, batch: Batch) -> Batch:
        """The batch with the states (B, T, H) that enter the first trained layer, where the model has frozen ones."""
        if not self.split.skips_layers(batch):
            return batch
        rows = self._of_each(batch, self.states, lambda text: self.split.with_states(text).states.squeeze(0))
        states = rows[0].new_zeros(*batch.input_ids.shape, rows[0].shape[-1])
        states[batch.attention_mask.bool()] = torch.cat(rows)
        return replace(batch, states=states)

    def known(self, documents: Batch) -> Known:
        """l_t and slopes of all real targets in order; empty where the model's losses need its logits."""
        if not self.split.is_direct(documents):
            return Known()
        found = self._of_each(documents, self.losses, self._losses)
        return Known(torch.cat([one.values for one in found]), torch.cat([one.slope for one in found]))

    @torch.no_grad()
    def _losses(self, document: Batch) -> Known:
        known = Known()
        self.split.token_losses(document, self.theta_0, known)
        return known

    def _of_each(self, batch: Batch, kept: dict, compute: Callable[[Batch], Tensor | Known]) -> list:
        """What is kept of every row, after computing what is not."""
        found = []
        for index, key in enumerate(keys(batch)):
            value = kept.get(key)
            if value is None:
                value = compute(batch.rows([index]))
                parts = (value.values, value.slope) if isinstance(value, Known) else (value,)
                size = sum(part.nbytes for part in parts)
                if self.bytes + size <= MOST_BYTES:
                    kept[key] = value
                    self.bytes += size
            found.append(value)
        return found
