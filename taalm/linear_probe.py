"""Linear probes (Alain and Bengio 2017): what a frozen model's states tell."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 150  # of L-BFGS


class LinearProbe:
    """z = W f + b of standardised features f (N, D) -> (N, count): the least data_loss(z) + decay |W|^2."""

    def __init__(self, features: Tensor, count: int, data_loss: Callable[[Tensor], Tensor], decay: float):
        self.mean = features.mean(0)
        self.scale = (features.std(0, correction=0) + 1e-6) * features.shape[1] ** 0.5
        self.matrix = torch.zeros(features.shape[1], count, requires_grad=True)
        self.bias = torch.zeros(count, requires_grad=True)
        standardised = self._standardised(features)
        optimizer = torch.optim.LBFGS([self.matrix, self.bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            total = data_loss(standardised @ self.matrix + self.bias) + decay * self.matrix.square().sum()
            total.backward()
            return total

        optimizer.step(loss)

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, count)."""
        return self._standardised(features) @ self.matrix + self.bias


class Classifier(LinearProbe):
    """Multinomial logistic regression: features (N, D), classes (N,), weights (N,)."""

    def __init__(self, features: Tensor, classes: Tensor, weights: Tensor, count: int, decay: float):
        weights = weights / weights.sum()

        def data_loss(z: Tensor) -> Tensor:
            return (F.cross_entropy(z, classes, reduction="none") * weights).sum()

        super().__init__(features, count, data_loss, decay)

    def __call__(self, features: Tensor) -> Tensor:
        """Log-probabilities of the classes, (N, count)."""
        return self.logits(features).log_softmax(-1)
