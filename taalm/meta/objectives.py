"""What the outer loop minimises at theta': the task loss, and optional terms that protect what theta knows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeFloat
from torch import Tensor

from taalm.losses import at_least_float32, mean_over_texts, target_mask
from taalm.meta.inner import Tensors
from taalm.scoring import Answers, answers
from taalm.text import Batch


@dataclass
class ObjectiveConfig:
    """The outer loss, judged at theta'."""

    name: Literal["task_nll", "change2", "change3"] = "task_nll"
    """Mean NLL of the answer tokens, or of its change d from theta_0: sign(d) d^2 (change2), d^3 (change3)."""
    form: Literal["schematic", "descriptive"] = "schematic"
    """The form of the probe that phi learns on."""
    restriction: NonNegativeFloat = 0.0
    """Weight of mean |d| on a probe of another fact of the batch: what was not in the document shall not move."""
    retention: NonNegativeFloat = 0.0
    """Weight of the retention term, on --retention_data."""
    retention_kind: Literal["kl", "facts"] = "kl"
    """KL(theta_0 || theta') on plain text, or NLL of the answers of known facts (a facts file); one for a document."""


Logits = Callable[..., Tensor]  # (parameters, batch, **options) -> theta's logits


def _answers(theta: Logits, parameters: Tensors, probes: Batch) -> Answers:
    return answers(partial(theta, parameters), probes)


def _probe_means(theta: Logits, probes: Batch, parameters: Tensors, change: Callable) -> Tensor:
    """Mean over probes of the mean over answer tokens of change(nll), a scalar."""
    found = _answers(theta, parameters, probes)
    return found.row_means(change(found.nll()), len(probes.input_ids)).mean()


def answer_nll(theta: Logits, probes: Batch, theta_0: Tensors) -> Tensor:
    """NLL of every answer token at theta_0, (N,), without a graph."""
    with torch.no_grad():
        return _answers(theta, theta_0, probes).nll()


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "task_nll": lambda nll, before: nll,
    "change2": lambda nll, before: (nll - before).abs() * (nll - before),
    "change3": lambda nll, before: (nll - before) ** 3,
}


def task_loss(theta: Logits, probes: Batch, theta_0: Tensors, name: str) -> Callable[[Tensors], Tensor]:
    """parameters -> the objective `name` on these probes."""
    before = answer_nll(theta, probes, theta_0) if name != "task_nll" else torch.zeros(())
    return lambda parameters: _probe_means(theta, probes, parameters, lambda nll: CHANGES[name](nll, before))


def restriction_loss(theta: Logits, unrelated: Batch, theta_0: Tensors) -> Callable[[Tensors], Tensor]:
    """parameters -> mean |nll - nll at theta_0| on unrelated probes."""
    before = answer_nll(theta, unrelated, theta_0)
    return lambda parameters: _probe_means(theta, unrelated, parameters, lambda nll: (nll - before).abs())


def kl_loss(theta: Logits, text: Batch, theta_0: Tensors) -> Callable[[Tensors], Tensor]:
    """parameters -> KL(theta_0 || theta') in nats, mean over plain texts of the mean over a text's tokens."""
    mask = target_mask(text.attention_mask).bool()
    places = mask.nonzero(as_tuple=True)

    def log_probabilities(parameters: Tensors) -> Tensor:
        return F.log_softmax(at_least_float32(theta(parameters, text, places=places)), dim=-1)

    with torch.no_grad():
        target = log_probabilities(theta_0)

    def loss(parameters: Tensors) -> Tensor:
        found = F.kl_div(log_probabilities(parameters), target, reduction="none", log_target=True).sum(-1)
        return mean_over_texts(found, mask)

    return loss


def facts_loss(theta: Logits, known: Batch, theta_0: Tensors) -> Callable[[Tensors], Tensor]:
    """parameters -> mean NLL of the answers of known facts."""
    return task_loss(theta, known, theta_0, "task_nll")


RETENTION = {"kl": kl_loss, "facts": facts_loss}


def objective(
    theta: Logits,
    config: ObjectiveConfig,
    theta_0: Tensors,
    probes: Batch,
    unrelated: Batch | None = None,
    retained: Batch | None = None,
) -> Callable[[Tensors], Tensor]:
    """parameters -> the whole outer loss: task + restriction * ... + retention * ..., a scalar."""
    terms = [(1.0, task_loss(theta, probes, theta_0, config.name))]
    if config.restriction and unrelated is not None:
        terms.append((config.restriction, restriction_loss(theta, unrelated, theta_0)))
    if config.retention and retained is not None:
        terms.append((config.retention, RETENTION[config.retention_kind](theta, retained, theta_0)))
    return lambda parameters: sum((weight * term(parameters) for weight, term in terms), torch.zeros(()))
