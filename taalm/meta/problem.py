"""theta in the meta-loop: from a batch of documents and probes to post-step losses and hypergradients."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from taalm.errors import UserError
from taalm.losses import target_mask
from taalm.meta.at_theta_0 import AtTheta0
from taalm.meta.hypergradient import Hypergradient, InnerProblem, TokenLosses, adapt
from taalm.meta.inner import InnerConfig, Tensors, make_optimizer
from taalm.meta.objectives import ObjectiveConfig, objective
from taalm.models.layerwise import LayerwiseGradients
from taalm.models.low_rank import Misaligned, learns_by_document
from taalm.models.split import SplitModel
from taalm.text import Batch, by_tokens


class Part(NamedTuple):
    """Documents of a lesson that are learned in one pass, and the parameters that they start from."""

    problem: InnerProblem
    theta: Tensors
    rows: list[int]
    targets: Tensor  # which of the lesson's (T-1) target places the part has
    weights: Tensor  # (b, t-1)


@dataclass(frozen=True)
class Lesson:
    """Documents with a probe each, and what the optional terms of the objective are judged on; all of B rows."""

    documents: Batch
    probes: Batch
    unrelated: Batch | None = None  # a probe of another fact for each document
    retained: Batch | None = None  # plain text, or a probe of a known fact, for each document

    def rows(self, indices: Sequence[int]) -> "Lesson":
        """Some of the documents, with what belongs to them."""
        parts = (self.documents, self.probes, self.unrelated, self.retained)
        return Lesson(*(part and part.rows(indices) for part in parts))


class Theta:
    """The base model as a function of its trainable parameters. It is never changed: theta_0 is a copy."""

    def __init__(self, model: nn.Module, inner: InnerConfig, task: ObjectiveConfig):
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # every pass must see the same function
        self.model, self.inner, self.task = model, inner, task
        self.theta_0 = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = make_optimizer(inner)
        self.checkpoint: bool = getattr(model, "is_gradient_checkpointing", False)
        if self.checkpoint:  # transformers' own would run layers again without the parameters they were called with
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()
        self.split = SplitModel(model)
        self.by_layers = LayerwiseGradients(self.split)
        self.at_start = AtTheta0(self.split, self.theta_0)
        # known after the first lesson; learning is sharing frozen layers, so there must be nothing else that trains
        self._together: bool | None = None if learns_by_document(model) else False

    def logits(self, parameters: Tensors, batch: Batch, **options: Any) -> Tensor:
        """theta's logits with these parameters, (B, T, V)."""
        return self.split.logits(batch, parameters, **options)

    def prepare(self, lesson: Lesson) -> Lesson:
        """The lesson with the states of theta's frozen layers, where there are such layers."""
        parts = (lesson.documents, lesson.probes, lesson.unrelated, lesson.retained)
        return Lesson(*(batch and self.at_start.with_states(batch) for batch in parts))

    def token_losses(self, documents: Batch) -> TokenLosses:
        """parameters -> l_t of these documents, (B, T-1)."""
        return lambda parameters, known=None: self.split.token_losses(documents, parameters, known)

    def problem(self, lesson: Lesson, together: int = 1) -> InnerProblem:
        """The inner problem of learning this lesson's documents in one theta', or `together` in one each."""
        layerwise = self.by_layers.works_for(lesson.documents)
        if self.checkpoint and not layerwise:
            raise UserError(
                "gradient_checkpointing of theta: this model's layers cannot be run one by one in meta-steps; "
                "leave it out and lower the inner token_budget or outer max_length"
            )
        judge = objective(self.logits, self.task, self.theta_0, lesson.probes, lesson.unrelated, lesson.retained)
        return InnerProblem(
            token_losses=self.token_losses(lesson.documents),
            task_loss=lambda parameters: together * judge(parameters),
            mask=target_mask(lesson.documents.attention_mask),
            optimizer=self.optimizer,
            warmup_steps=self.inner.warmup_steps,
            steps=self.inner.steps,
            together=together,
            start=self.at_start.known(lesson.documents),
            by_layers=partial(self.by_layers, lesson.documents) if layerwise else None,
            checkpoint=self.checkpoint,
        )

    def _parts(self, lesson: Lesson, weights: Tensor) -> Iterator[Part]:
        """The lesson in parts, each with one theta' (joint) or with one theta' for each of its documents."""
        if self.inner.mode == "joint":
            everything = torch.ones(weights.shape[1], dtype=torch.bool)
            yield Part(self.problem(lesson), self.theta_0, list(range(len(weights))), everything, weights)
            return
        texts = (batch for batch in (lesson.documents, lesson.retained) if batch is not None)
        lengths = torch.stack([batch.attention_mask.sum(1) for batch in texts]).amax(0).tolist()
        budget = self.inner.token_budget // self.inner.steps if self._learns_together(lesson) else 1
        for rows in by_tokens(range(len(lengths)), lengths, budget):
            part, count = lesson.rows(rows), len(rows)
            theta = {n: p.expand(count, *p.shape) for n, p in self.theta_0.items()} if count > 1 else self.theta_0
            targets = target_mask(lesson.documents.attention_mask[rows]).any(0)
            yield Part(self.problem(part, count), theta, rows, targets, weights[rows][:, targets])

    @torch.no_grad()
    def _learns_together(self, lesson: Lesson) -> bool:
        """Whether theta' of several documents can share a pass: the model must keep documents apart in every layer."""
        if self._together is None:
            try:
                self.logits({name: p[None] for name, p in self.theta_0.items()}, lesson.documents.rows([0]))
                self._together = True
            except Misaligned:
                self._together = False
        return self._together

    def hypergradient(
        self, estimator: Callable[[InnerProblem, Tensors, Tensor], Hypergradient], lesson: Lesson, weights: Tensor
    ) -> Hypergradient:
        """Mean post-step task loss over the documents and its gradient by the weights (B, T-1)."""
        gradient, losses, share = torch.zeros_like(weights), [], self._share(lesson)
        for part in self._parts(self.prepare(lesson), weights.detach()):
            found = estimator(part.problem, part.theta, part.weights)
            places = part.targets.nonzero().squeeze(1)
            gradient[torch.tensor(part.rows)[:, None], places] = found.weight_gradient * share
            losses.append(found.task_loss * share)
        return Hypergradient(torch.stack(losses).sum(), gradient)

    def post_step_loss(self, lesson: Lesson, weights: Tensor) -> float:
        """Mean task loss over the documents after learning them with these weights (B, T-1)."""
        losses = []
        for part in self._parts(self.prepare(lesson), weights.detach()):
            learned = adapt(part.problem, part.theta, part.weights)
            with torch.no_grad():
                losses.append(part.problem.task_loss(learned))
        return float(torch.stack(losses).sum() * self._share(lesson))

    def _share(self, lesson: Lesson) -> float:
        """Of the parts' losses in the mean over documents."""
        return 1.0 if self.inner.mode == "joint" else 1 / len(lesson.documents.input_ids)
