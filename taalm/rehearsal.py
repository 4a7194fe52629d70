"""Rehearsal: what an update goes through beside its documents, so that theta keeps what it knows.

- mix_review (He et al. 2021): every update is joined by review texts, ratio * decay^epoch for each document, and the
  loss is the mean over all of them;
- kl: KL(theta_0 || theta) on as many review texts is added to the loss (mean over a text's tokens, then over texts;
  where an answer is marked in a text, over its tokens alone).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from taalm import processes
from taalm.errors import UserError
from taalm.head_loss import head_kl
from taalm.losses import at_least_float32, mean_over_texts, target_mask, weighted_mean
from taalm.models.split import SplitModel
from taalm.seeds import derive_seed
from taalm.text import Batch, Encoded, by_tokens, collate

EXACT = 1e-9  # whole products may come out a rounding below themselves


@dataclass
class ReviewConfig:
    """Review texts for the methods `review` (Mix-review) and `kl`."""

    data: str = ""
    """A jsonl file, a text file, or a folder (extracted Wikipedia, WikiText); default the TA-train documents."""
    ratio: NonNegativeFloat = 1.0
    """Review texts for each document of an update, in the first epoch."""
    batch_size: NonNegativeInt = 0
    """Review texts for an update, in the first epoch, in place of the ratio; 0 goes by the ratio."""
    decay: NonNegativeFloat = 1.0
    """Their number is multiplied by this after every epoch."""
    weight: NonNegativeFloat = 1.0
    """KL replay: the weight of the KL term."""
    texts: PositiveInt = 2000
    """Review texts that are drawn from, a sample of the data."""
    max_length: PositiveInt = 128
    """Review texts are cut to this many tokens."""


class Rehearsal(Protocol):
    """Losses that an update adds; `document_share` is what its documents' own loss is multiplied by."""

    def document_share(self, documents: int, epoch: int, step: int) -> float: ...

    def losses(self, documents: int, epoch: int, step: int) -> Iterator[Tensor]:
        """Scalars to go backward through, one forward pass each."""
        ...


class _Review:
    """Texts drawn for an update, the same for the same seed and step."""

    def __init__(
        self, split: SplitModel, texts: Sequence[Encoded], pad_id: int, config: ReviewConfig, token_budget: int,
        seed: int,
    ):  # fmt: skip
        if not texts:
            raise UserError("there is no review text; give some with --review.data")
        self.split, self.texts, self.pad_id = split, list(texts), pad_id
        self.config, self.token_budget, self.seed = config, token_budget, seed
        self.lengths = [len(text) for text in self.texts]

    def count(self, documents: int, epoch: int, step: int) -> int:
        """Review texts that join the `documents` documents of update `step` in this epoch (both from 0).

        Where the number is no whole one, updates have turns, so that it holds on average.
        """
        first = (self.config.batch_size or self.config.ratio * documents) * self.config.decay**epoch
        return math.floor(first * (step + 1) + EXACT) - math.floor(first * step + EXACT)

    def parts(self, count: int, step: int) -> Iterator[tuple[Batch, float]]:
        """(batch, its share of the `count` texts) within the token budget, this process's."""
        rng = random.Random(derive_seed(self.seed + 1, step))
        chosen = [rng.randrange(len(self.texts)) for _ in range(count)]
        device = next(self.split.model.parameters()).device
        for part, counts in processes.in_step(chosen, lambda mine: by_tokens(mine, self.lengths, self.token_budget)):
            batch = collate([self.texts[index] for index in part], self.pad_id).to(device)
            yield self.split.with_states(batch), counts * len(part) / count


class MixReview(_Review):
    """Documents and review texts in one mean."""

    def document_share(self, documents: int, epoch: int, step: int) -> float:
        return documents / (documents + self.count(documents, epoch, step))

    def losses(self, documents: int, epoch: int, step: int) -> Iterator[Tensor]:
        share = 1 - self.document_share(documents, epoch, step)
        for batch, part in self.parts(self.count(documents, epoch, step), step):
            mask = target_mask(batch.attention_mask)
            nll = self.split.token_losses(batch)
            yield share * part * weighted_mean(nll, torch.ones_like(nll), mask)


class KLReplay(_Review):
    """theta_0's predictions on review texts are a teacher. Must be built before training starts."""

    def __init__(self, split: SplitModel, *args: object):
        super().__init__(split, *args)
        if isinstance(split.model, FSDPModule):
            raise UserError("KL replay needs theta_0 beside theta and does not go with shards; use review")
        self.theta_0 = {n: p.detach().clone() for n, p in split.model.named_parameters() if p.requires_grad}

    def document_share(self, documents: int, epoch: int, step: int) -> float:
        return 1.0

    def losses(self, documents: int, epoch: int, step: int) -> Iterator[Tensor]:
        for batch, part in self.parts(self.count(documents, epoch, step), step):
            answer = batch.answer[:, 1:]
            held = torch.where(answer.any(1, keepdim=True), answer, target_mask(batch.attention_mask).bool())
            values = self._divergence(batch, held.nonzero(as_tuple=True))
            yield self.config.weight * part * mean_over_texts(values, held)

    def _divergence(self, batch: Batch, places: tuple[Tensor, Tensor]) -> Tensor:
        """KL(theta_0 || theta) at each of the places, (N,)."""
        split, direct = self.split, self.split.is_direct(batch)
        reach = split.head_input if direct else partial(split.logits, places=places)
        split.model.eval()  # the teacher has no dropout
        with torch.no_grad():
            before = reach(batch, self.theta_0)
        split.model.train()
        now = reach(batch, None)
        if direct:
            return head_kl(now[places], before[places], split.head.weight)
        before, now = (F.log_softmax(at_least_float32(logits), -1) for logits in (before, now))
        return F.kl_div(now, before, reduction="none", log_target=True).sum(-1)


REHEARSALS: dict[str, type[_Review]] = {"mix_review": MixReview, "kl": KLReplay}
