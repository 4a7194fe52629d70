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

from taalm.errors import UserError

Tensors = Mapping[str, Tensor]


@dataclass
class InnerConfig:
    """The inner step: how theta learns a document from its weighted loss (docs/method.md)."""

    optimizer: Literal["adamw", "adamw_frozen", "sgd"] = "adamw"
    """The update rule; CaMeLS learns with sgd. adamw_frozen moves as adamw and differentiates as if v were given."""
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
    token_budget: PositiveInt = 256
    """Independent: so many padded tokens learn side by side, divided by K (memory grows with it, seconds fall)."""

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"--inner.betas {list(self.betas)}: each must be at least 0 and below 1")


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
        zeros = {name: zeros_like(value) for name, value in parameters.items()}
        return AdamWState(zeros, dict(zeros), 0)

    def moments(self, g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(m', v') after this gradient."""
        b1, b2 = self.betas
        return torch.lerp(m, g, 1 - b1), torch.addcmul(b2 * v, g, g, value=1 - b2)

    def move(self, theta: Tensor, m: Tensor, v: Tensor, step: int) -> Tensor:
        """theta' from theta and both moments after the gradient of this step, counted from 1."""
        c1, _ = self._corrections(step)
        return torch.addcdiv(self.decay * theta, m, self._root(v, step) + self.eps, value=-self.lr / c1)

    def step(self, g: Tensor, theta: Tensor, m: Tensor, v: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """(theta', m', v') after this gradient."""
        m, v = self.moments(g, m, v)
        return self.move(theta, m, v, step), m, v

    def update(
        self, gradients: Tensors, state: AdamWState, parameters: Tensors
    ) -> tuple[dict[str, Tensor], AdamWState]:
        """One step of all parameters: (theta', state')."""
        found, after = {}, AdamWState({}, {}, state.step + 1)
        for name, theta in parameters.items():
            moved = self.step(gradients[name], theta, state.m[name], state.v[name], after.step)
            found[name], after.m[name], after.v[name] = moved
        return found, after

    def derivatives(self, m: Tensor, v: Tensor, step: int) -> UpdateDerivatives:
        """d theta'/d m' and d theta'/d v' of the step that led to these moments; 0 where the second one is 0."""
        c1, c2 = self._corrections(step)
        root = self._root(v, step)
        denominator = root + self.eps
        by_m = denominator.reciprocal().mul_(-self.lr / c1)
        by_v = (m * by_m).div_(denominator.mul_(root)).mul_(-0.5 / c2)
        return UpdateDerivatives(by_m, by_v)

    def _root(self, v: Tensor, step: int) -> Tensor:
        """sqrt(v'/c2), infinite where v' is 0: m' is 0 too, the step and its slopes shall be 0 and never 0/0."""
        _, c2 = self._corrections(step)
        return (v.masked_fill(v == 0, torch.inf) / c2).sqrt()

    def _corrections(self, step: int) -> tuple[float, float]:
        return 1 - self.betas[0] ** step, 1 - self.betas[1] ** step


class FrozenAdamW(AdamW):
    """AdamW's move, differentiated with its preconditioner 1 / (sqrt(v'/c2) + eps) held constant: another estimator,
    not the exact hypergradient (theta' keeps d theta'/d m', and d theta'/d v' is taken for 0)."""

    def move(self, theta: Tensor, m: Tensor, v: Tensor, step: int) -> Tensor:
        return super().move(theta, m, v.detach(), step)

    def derivatives(self, m: Tensor, v: Tensor, step: int) -> UpdateDerivatives:
        return UpdateDerivatives(super().derivatives(m, v, step).m, zeros_like(v))


class SGD(AdamW):
    """theta' = (1 - lr wd) theta - lr g, as an update with both moments: b1 = 0 and b2 = 1 give m' = g and v' = 0."""

    def __init__(self, lr: float, weight_decay: float = 0.0):
        super().__init__(lr, betas=(0.0, 1.0), weight_decay=weight_decay)

    def move(self, theta: Tensor, m: Tensor, v: Tensor, step: int) -> Tensor:
        return self.decay * theta - self.lr * m

    def derivatives(self, m: Tensor, v: Tensor, step: int) -> UpdateDerivatives:
        return UpdateDerivatives(torch.full_like(m, -self.lr), torch.zeros_like(v))


def zeros_like(tensor: Tensor) -> Tensor:
    """Zeros of that shape that take no memory; not to be written into."""
    return tensor.new_zeros(()).expand_as(tensor)


def make_optimizer(config: InnerConfig) -> AdamW:
    if config.optimizer == "sgd":
        return SGD(config.lr, config.weight_decay)
    rule = FrozenAdamW if config.optimizer == "adamw_frozen" else AdamW
    return rule(config.lr, tuple(config.betas), config.eps, config.weight_decay)
