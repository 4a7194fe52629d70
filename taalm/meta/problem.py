"""theta in the meta-loop: from a batch of documents and probes to post-step losses and hypergradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from taalm.losses import target_mask, token_nll
from taalm.meta.hypergradient import Hypergradient, InnerProblem, TokenLosses, adapt
from taalm.meta.inner import InnerConfig, Tensors, make_optimizer
from taalm.meta.objectives import ObjectiveConfig, objective
from taalm.models.split import SplitModel
from taalm.text import Batch


@dataclass(frozen=True)
class Lesson:
    """Documents with a probe each, all of B rows, and what the optional terms of the objective are judged on."""

    documents: Batch
    probes: Batch
    unrelated: Batch | None = None  # a probe of another fact for each document
    retained: Batch | None = None  # plain text or probes of known facts, any number of rows

    def row(self, index: int) -> "Lesson":
        unrelated = self.unrelated.row(index) if self.unrelated is not None else None
        return Lesson(self.documents.row(index), self.probes.row(index), unrelated, self.retained)


class Theta:
    """The base model as a function of its trainable parameters. It is never changed: theta_0 is a copy."""

    def __init__(self, model: nn.Module, inner: InnerConfig, task: ObjectiveConfig):
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # every pass must see the same function
        self.model, self.inner, self.task = model, inner, task
        self.theta_0 = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(inner)
        self.split = SplitModel(model)

    def logits(self, parameters: Tensors, batch: Batch, **options: Any) -> Tensor:
        """theta's logits with these parameters, (B, T, V)."""
        return self.split.logits(batch, parameters, **options)

    def prepare(self, lesson: Lesson) -> Lesson:
        """The lesson with the states of theta's frozen layers, where there are such layers."""
        parts = (lesson.documents, lesson.probes, lesson.unrelated, lesson.retained)
        return Lesson(*(batch and self.split.with_states(batch) for batch in parts))

    def token_losses(self, documents: Batch) -> TokenLosses:
        """parameters -> l_t of these documents, (B, T-1)."""
        return lambda parameters: token_nll(self.logits(parameters, documents), documents.input_ids)

    def problem(self, lesson: Lesson) -> InnerProblem:
        """The inner problem of learning this lesson's documents in one theta'."""
        return InnerProblem(
            token_losses=self.token_losses(lesson.documents),
            task_loss=objective(self.logits, self.task, self.theta_0, lesson.probes, lesson.unrelated, lesson.retained),
            mask=target_mask(lesson.documents.attention_mask),
            optimizer=self.optimizer,
            warmup_steps=self.inner.warmup_steps,
            steps=self.inner.steps,
        )

    def _parts(self, lesson: Lesson, weights: Tensor) -> Iterator[tuple[slice | int, slice | Tensor, Lesson, Tensor]]:
        """One part per theta': (row, where its real targets are, its lesson, its weights (b, t-1))."""
        if self.inner.mode == "joint":
            yield slice(None), slice(None), lesson, weights
            return
        for index, targets in enumerate(target_mask(lesson.documents.attention_mask).bool()):
            yield index, targets, lesson.row(index), weights[index, targets][None]

    def hypergradient(
        self, estimator: Callable[[InnerProblem, Tensors, Tensor], Hypergradient], lesson: Lesson, weights: Tensor
    ) -> Hypergradient:
        """Mean post-step task loss over the documents and its gradient by the weights (B, T-1)."""
        gradient, losses = torch.zeros_like(weights), []
        parts = list(self._parts(self.prepare(lesson), weights.detach()))
        for row, targets, part, part_weights in parts:
            found = estimator(self.problem(part), self.theta_0, part_weights)
            gradient[row, targets] = found.weight_gradient.squeeze(0) / len(parts)
            losses.append(found.task_loss)
        return Hypergradient(torch.stack(losses).mean(), gradient)

    def post_step_loss(self, lesson: Lesson, weights: Tensor) -> float:
        """Mean task loss over the documents after learning them with these weights (B, T-1)."""
        losses = []
        for _, _, part, part_weights in self._parts(self.prepare(lesson), weights.detach()):
            problem = self.problem(part)
            learned = adapt(problem, self.theta_0, part_weights)
            with torch.no_grad():
                losses.append(problem.task_loss(learned))
        return float(torch.stack(losses).mean())
