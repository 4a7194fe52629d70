"""Readout: how much theta_0's own states say that a token is a fact's object, as weights; no second model, no seed.

TA-train's facts have their object marked in their document. A linear probe of what enters the middle layer gives every
token a logit, and a softmax within the document shares its weight out; the objects' tokens get the largest share that
the penalty allows. A state has seen the document up to its token, as phi's has.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from taalm.errors import UserError
from taalm.linear_probe import LinearProbe
from taalm.shares import Share
from taalm.shown import LONGEST, Shown

DECAY = 2e-4  # of the probe's weights
BALANCE = 0.7  # a fact of a relation that has n weighs n^-0.7, as often as phi's training draws it


@dataclass
class ReadoutConfig:
    """Weights read from theta_0's own states, for methods with `readout` in their name."""

    facts: str = ""
    """Facts with their documents (jsonl), of which the objects' places are learned; for LAMA-ckl TA-train."""
    power: Share = 0.25
    """Another weighter's weights, phi's, count to this power beside the readout's."""


class Readout:
    """Weights of documents from theta_0's states there. Raises UserError where no object is among the tokens read."""

    def __init__(self, shown: Shown):
        marked = [torch.tensor(row.answer[1:]).float() for row in shown.rows]
        kept = [index for index, answer in enumerate(marked) if answer.any()]
        if not kept:
            raise UserError(f"readout: no fact has its object among the first {LONGEST} tokens of its document")
        relations = Counter(shown.facts[index].relation_code for index in kept)
        counts = torch.tensor([relations[shown.facts[index].relation_code] for index in kept])
        weights = counts**-BALANCE
        weights = weights / weights.sum()
        lengths = [len(marked[index]) for index in kept]
        target = pad_sequence([marked[index] / marked[index].sum() for index in kept], batch_first=True)

        def loss(logits: Tensor) -> Tensor:
            """Cross-entropy of the shares within each document to equal shares of its object's tokens."""
            z = pad_sequence(logits.squeeze(1).split(lengths), batch_first=True, padding_value=-torch.inf)
            logs = z.log_softmax(1).masked_fill(target == 0, 0.0)
            return -(weights * (target * logs).sum(1)).sum()

        self.probe = LinearProbe(torch.cat([shown.states[index] for index in kept]), 1, loss, DECAY)

    def __call__(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Weights (T - 1,) of documents with these states (T - 1, H), of mean 1 each."""
        return [len(own) * self.probe.logits(own).squeeze(1).softmax(0) for own in states]
