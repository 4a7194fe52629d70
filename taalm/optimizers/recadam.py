"""RecAdam (Chen et al. 2020, algorithm 1): Adam with an annealed quadratic pull back to the pretrained weights.

With lambda(t) = 1 / (1 + exp(-k (t - t0))) the task's Adam step is scaled by lambda and every parameter is moved by
    -lr (1 - lambda) coefficient (theta - theta_start),
outside the moments. Every trainable parameter is recalled, adapters to their values before training.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jsonargparse.typing import NonNegativeFloat
from torch import nn

from taalm.errors import NoResult


@dataclass
class RecAdamConfig:
    """RecAdam's annealing and recall, for the method `recadam`."""

    k: float = 0.5
    """Steepness of the annealing, per update."""
    t0: float = 250.0
    """The update at which task and recall weigh the same (published: 250)."""
    t0_share: NonNegativeFloat = 0.0
    """The same as a share of all updates; above 0 it replaces t0 (short runs end before update 250)."""
    coefficient: NonNegativeFloat = 5000.0
    """Strength of the recall; learning rate times coefficient must stay below 2."""


class RecAdam(torch.optim.AdamW):
    """AdamW whose step is scaled by lambda(t), with the recall. Must be built before training starts."""

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, k: float = 0.5, t0: float = 250,
        coefficient: float = 5000.0,
    ):  # fmt: skip
        """`t0` is in updates. Raises NoResult when lr * coefficient >= 2: the recall alone would diverge."""
        if lr * coefficient >= 2:
            raise NoResult(
                f"RecAdam diverges at lr * coefficient = {lr * coefficient:g} >= 2; lower the learning rate or "
                "recadam.coefficient"
            )
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.k, self.t0, self.coefficient = k, t0, coefficient
        for parameter in self._parameters():
            self.state[parameter] |= {  # AdamW's own entries too: it fills a state only while that is empty
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
                "start": parameter.detach().clone(),
            }

    def _parameters(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self.param_groups for parameter in group["params"])

    def annealed(self, update: int) -> float:
        """lambda of update `update`, counted from 1."""
        return 1 / (1 + math.exp(min(700.0, -self.k * (update - self.t0))))

    @torch.no_grad()
    def step(self, closure=None):
        before = {parameter: parameter.detach().clone() for parameter in self._parameters()}
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                share = self.annealed(int(state["step"]))
                moved = before[parameter].lerp(parameter, share)
                recall = group["lr"] * (1 - share) * self.coefficient
                parameter.copy_(moved - recall * (before[parameter] - state["start"]))
        return loss
