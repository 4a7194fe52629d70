"""Cloze scoring: how well a model completes a probe with its object. Logits are computed at answer positions only."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taalm import processes
from taalm.facts import Fact
from taalm.losses import cross_entropy
from taalm.models.split import SplitModel
from taalm.text import Batch, Encoded, by_tokens, collate, encode, pad_token


@dataclass(frozen=True)
class ProbeScore:
    """One probe: share of the object's tokens predicted by teacher-forced argmax, all of them right, mean NLL."""

    accuracy: float
    exact_match: bool
    nll: float  # nats per object token
    tokens: int


@dataclass(frozen=True)
class Answers:
    """The answer tokens of a batch, flat: N of them."""

    logits: Tensor  # (N, V)
    targets: Tensor  # (N,)
    rows: Tensor  # (N,) which probe of the batch

    def nll(self) -> Tensor:
        """-log p(answer token), (N,)."""
        return cross_entropy(self.logits, self.targets)

    def row_means(self, values: Tensor, batch_size: int) -> Tensor:
        """Mean of (N,) values per probe, (batch_size,)."""
        total = torch.zeros(batch_size, dtype=values.dtype, device=values.device).index_add(0, self.rows, values)
        return total / torch.bincount(self.rows, minlength=batch_size)


def answers(logits_of: Callable[..., Tensor], batch: Batch) -> Answers:
    """The logits that predict answer tokens; `logits_of(batch, places=(rows, columns))` runs the model."""
    rows, places = batch.answer[:, 1:].nonzero(as_tuple=True)  # `places` predict the token at places + 1
    return Answers(logits_of(batch, places=(rows, places)), batch.input_ids[rows, places + 1], rows)


def encode_probe(tokenizer: Any, fact: Fact, form: str, ends: bool = False, seq2seq: bool = False) -> Encoded:
    """The fact's probe in `form`, its object marked as the answer; an encoder reads what stands before it."""
    probe, span = fact.probe(form), fact.answer_span(form)
    return encode(tokenizer, probe, span, ends=ends, source=probe[: span[0]].strip() if seq2seq else None)


@dataclass(frozen=True)
class ProbeBatches:
    """Encoded probes in batches of similar length, made once and scored as often as needed."""

    batches: tuple[Batch, ...]
    indices: tuple[tuple[int, ...], ...]  # where each batch's probes stood in the list given
    count: int  # of the list given; where there are several processes each has some of its batches

    @classmethod
    def make(
        cls,
        rows: Sequence[Encoded],
        pad_id: int,
        split: SplitModel,
        token_budget: int = 1024,
        padding_side: str = "right",
    ) -> "ProbeBatches":
        """Collate, on the model's device, with the states of its frozen layers where it has such layers."""
        device = next(split.model.parameters()).device
        rows = [row.up_to_answer() for row in rows]
        parts = by_tokens(range(len(rows)), [len(row) for row in rows], token_budget)[::-1]  # the longest first
        indices = [part for part, _ in processes.in_step(parts)]
        batches = (collate([rows[i] for i in part], pad_id, padding_side).to(device) for part in indices)
        return cls(tuple(split.with_states(batch) for batch in batches), tuple(map(tuple, indices)), len(rows))


@torch.no_grad()
def score_batches(split: SplitModel, probes: ProbeBatches) -> list[ProbeScore]:
    """Score probes; results in the order of the list they were made from. The model's mode is left as it is.

    Several processes score their shares, and each returns the results of all, one for every probe.
    """
    scores: dict[int, ProbeScore] = {}
    for batch, indices in zip(probes.batches, probes.indices, strict=True):
        found = answers(split.logits, batch)
        right = (found.logits.argmax(-1) == found.targets).double()
        accuracy = found.row_means(right, len(indices)).tolist()
        nll = found.row_means(found.nll().double(), len(indices)).tolist()
        counts = batch.answer.sum(1).tolist()
        for index, hits, loss, count in zip(indices, accuracy, nll, counts, strict=True):
            scores[index] = ProbeScore(hits, math.isclose(hits, 1.0), loss, count)
    scores = processes.gather(scores)
    return [scores[index] for index in range(probes.count)]


def score_probes(
    model: nn.Module, rows: Sequence[Encoded], pad_id: int, token_budget: int = 1024, padding_side: str = "right"
) -> list[ProbeScore]:
    """Score encoded probes once; results in the order given."""
    split = SplitModel(model)
    return score_batches(split, ProbeBatches.make(rows, pad_id, split, token_budget, padding_side))


def score_facts(
    model: nn.Module, tokenizer: Any, facts: Sequence[Fact], form: str = "descriptive", token_budget: int = 1024
) -> list[ProbeScore]:
    """Score each fact's probe in one form."""
    rows = [encode_probe(tokenizer, fact, form) for fact in facts]
    return score_probes(model, rows, pad_token(tokenizer), token_budget)
