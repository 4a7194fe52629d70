"""What phi has learned: where its weights fall on documents, and what a step with them does to the task."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taalm import processes
from taalm.facts import Fact, objects_by_relation
from taalm.losses import target_mask
from taalm.meta.lessons import Lessons
from taalm.meta.problem import Lesson, Theta
from taalm.models.train_attention import TrainAttention
from taalm.text import Batch, offsets


def object_ratios(weights: Tensor, batch: Batch) -> Tensor:
    """Mean weight of the object's tokens over the mean weight of all real targets, per document: (B, T) -> (B,)."""
    real = torch.zeros_like(weights)
    real[:, 1:] = target_mask(batch.attention_mask)
    chosen = batch.answer * real

    def mean(mask: Tensor) -> Tensor:
        return (weights * mask).sum(1) / mask.sum(1)

    return mean(chosen) / mean(real)


def uncommon(facts: Sequence[Fact]) -> list[bool]:
    """Whether each fact's object is not the commonest one of its relation among these facts."""
    counts = objects_by_relation(facts)
    return [counts[fact.relation_code].most_common(1)[0][0] != fact.object for fact in facts]


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return dict.fromkeys(("q1", "median", "q3"), values[0] if values else float("nan"))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": low, "median": middle, "q3": high}


@torch.no_grad()
def observe_weights(phi: TrainAttention, documents: Sequence[Batch], facts: Sequence[Sequence[Fact]]) -> dict:
    """Object-to-mean weight ratios over batches of documents and their facts, the share of documents whose heaviest
    token is the object's, and the mean logit.

    A document whose object was cut off has no ratio and is counted under `without_object`.
    """
    ratios: list[float] = []
    heaviest = 0.0
    logit_sum = tokens = 0.0
    for batch in documents:
        logits = phi.logits(batch.input_ids, batch.attention_mask)
        weights = phi.to_weights(logits, batch.attention_mask)
        ratios += object_ratios(weights, batch).tolist()
        heaviest += float(batch.answer.gather(1, weights.argmax(1, keepdim=True)).sum())
        logit_sum += float((logits * batch.attention_mask).sum())
        tokens += float(batch.attention_mask.sum())
    flat = [fact for group in facts for fact in group]
    rare = [ratio for ratio, is_rare in zip(ratios, uncommon(flat), strict=True) if is_rare]
    present = [ratio for ratio in ratios if ratio == ratio]
    return {
        "documents": len(ratios),
        "without_object": len(ratios) - len(present),
        "object_heaviest": heaviest / len(ratios),
        "object_ratio": quartiles(present),
        "object_ratio_uncommon": quartiles([ratio for ratio in rare if ratio == ratio]),
        "mean_logit": logit_sum / tokens,
    }


def watched(tokenizer: Any, lessons: Lessons, count: int) -> list[dict]:
    """The first `count` documents, cut into tokens: what taalm.heatmap.snapshots_of shows weights on."""
    found = []
    for fact, row in zip(lessons.facts[:count], lessons.documents[:count], strict=True):
        places = offsets(tokenizer, fact.evidence, row)
        marks = list(row.answer[1 : len(places) + 1])
        found.append({"name": Path(fact.where).name, "text": fact.evidence, "places": places, "object": marks})
    return found


@torch.no_grad()
def snapshot(phi: TrainAttention, lessons: Lessons, count: int) -> list[list[float]]:
    """The weights of these documents' tokens after BOS."""
    batch = lessons.lesson(range(min(count, len(lessons.facts)))).documents
    weights = phi.weights(batch.input_ids, batch.attention_mask)
    lengths = batch.attention_mask.sum(1).tolist()
    rows = zip(weights.tolist(), lengths, strict=True)
    return [[round(weight, 4) for weight in row[1:length]] for row, length in rows]


def post_step_losses(theta: Theta, lessons: Sequence[Lesson], weights: Sequence[Tensor]) -> float:
    """Mean task loss over lessons after learning each with its weights (B, T); several processes share them."""
    mine = processes.deal(list(zip(lessons, weights, strict=True)))
    total = sum(theta.post_step_loss(lesson, value[:, 1:]) * len(value) for lesson, value in mine)
    return processes.totals(total)[0] / sum(len(value) for value in weights)
