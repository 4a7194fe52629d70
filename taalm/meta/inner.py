"""The inner optimizer: AdamW as a pure init / update pair, with its exact elementwise derivatives.

The update is torch.optim.AdamW's (Loshchilov and Hutter 2019). With t the step number, c1 = 1 - b1^t, c2 = 1 - b2^t:
    m' = b1 m + (1 - b1) g        v' = b2 v + (1 - b2) g^2
    theta' = (1 - lr wd) theta - lr (m'/c1) / (sqrt(v'/c2) + eps)
All functions are elementwise, so the derivatives are diagonal and cost no more than the update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass
class InnerConfig:
    """The inner step: how theta learns a document from its weighted loss (docs/method.md)."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The update rule; CaMeLS learns with sgd."""
    lr: NonNegativeFloat = 3e-3
    """Its learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the two moments."""
    eps: float = 1e-8
    """AdamW epsilon."""
    weight_decay: float = 0.0
    """AdamW decoupled weight decay."""
    warmup_steps: NonNegativeInt = 1
    """Steps before the differentiated ones; they fill the moments and are not differentiated."""
    steps: PositiveInt = 1
    """Differentiated steps (K)."""
    mode: Literal["joint", "independent"] = "joint"
    """One theta' for the batch of documents (joint, cheaper) or one per document (independent, as published)."""
    token_budget: PositiveInt = 512
    """Independent: documents of so many padded tokens learn side by side (memory grows with it, seconds fall)."""


class AdamWState(NamedTuple):
    """Both moments and the number of steps done."""

    m: dict[str, Tensor]
    v: dict[str, Tensor]
    step: int


class UpdateDerivatives(NamedTuple):
    """d theta'/d m' and d theta'/d v' of one update, elementwise."""

    m: Tensor
    v: Tensor


@dataclass(frozen=True)
class AdamW:
    """The pure update. Settings as in torch.optim.AdamW."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: float = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "decay", 1 - self.lr * self.weight_decay)

    def init(self, parameters: Tensors) -> AdamWState:
        zeros = {name: torch.zeros_like(value) for name, value in parameters.items()}
        return AdamWState(zeros, dict(zeros), 0)

    def moments(self, gradients: Tensors, state: AdamWState) -> AdamWState:
        """The state after this gradient."""
        b1, b2 = self.betas
        m = {name: b1 * state.m[name] + (1 - b1) * g for name, g in gradients.items()}
        v = {name: b2 * state.v[name] + (1 - b2) * g * g for name, g in gradients.items()}
        return AdamWState(m, v, state.step + 1)

    def apply(self, parameters: Tensors, state: AdamWState) -> dict[str, Tensor]:
        """theta' from theta and the state after this step's gradient.

        Where the second moment is 0 so is the first and theta' = decay * theta. The square root is taken of 1
        there, so that double backward meets no infinite slope (and 0 * inf gives no NaN).
        """
        c1, c2 = self._corrections(state.step)
        updated = {}
        for name, theta in parameters.items():
            dead = state.v[name] == 0
            root = (state.v[name].masked_fill(dead, c2) / c2).sqrt()
            step = (state.m[name] / c1) / (root + self.eps)
            updated[name] = self.decay * theta - self.lr * step.masked_fill(dead, 0.0)
        return updated

    def update(
        self, gradients: Tensors, state: AdamWState, parameters: Tensors
    ) -> tuple[dict[str, Tensor], AdamWState]:
        """One step: (theta', state')."""
        state = self.moments(gradients, state)
        return self.apply(parameters, state), state

    def derivatives(self, state: AdamWState, name: str) -> UpdateDerivatives:
        """d theta'/d m' and d theta'/d v' of the step that led to `state`; 0 where the second moment is 0."""
        c1, c2 = self._corrections(state.step)
        m, v = state.m[name], state.v[name]
        dead = v == 0
        root = (v.masked_fill(dead, c2) / c2).sqrt()
        denominator = root + self.eps
        by_m = -self.lr / (c1 * denominator)
        by_v = self.lr * (m / c1) / (denominator.square() * 2 * root * c2)
        return UpdateDerivatives(by_m.masked_fill(dead, 0.0), by_v.masked_fill(dead, 0.0))

    def _corrections(self, step: int) -> tuple[float, float]:
        return 1 - self.betas[0] ** step, 1 - self.betas[1] ** step


class SGD(AdamW):
    """theta' = (1 - lr wd) theta - lr g, as an update with both moments: b1 = 0 and b2 = 1 give m' = g and v' = 0."""

    def __init__(self, lr: float, weight_decay: float = 0.0):
        super().__init__(lr, betas=(0.0, 1.0), weight_decay=weight_decay)

    def apply(self, parameters: Tensors, state: AdamWState) -> dict[str, Tensor]:
        return {name: self.decay * theta - self.lr * state.m[name] for name, theta in parameters.items()}

    def derivatives(self, state: AdamWState, name: str) -> UpdateDerivatives:
        return UpdateDerivatives(torch.full_like(state.m[name], -self.lr), torch.zeros_like(state.v[name]))


def make_optimizer(config: InnerConfig) -> AdamW:
    if config.optimizer == "sgd":
        return SGD(config.lr, config.weight_decay)
    return AdamW(config.lr, tuple(config.betas), config.eps, config.weight_decay)
