"""The warm start: before the outer loop phi is fitted to weights made from token scores, which do not depend on phi.

A token's score is how much its loss falls along the task's own first AdamW step at theta_0 (that step is a sign):
    s_t = -d/deps l_t(theta_0 + eps u),    u = -sign(grad task(theta_0)).
It takes one short backward and one forward-mode pass per document, no inner step, and is kept: a document that comes
again costs nothing. The weights to fit are one step of mirror descent away from equal ones, softmax(s / (temperature *
std of s)) within the document; phi's shares are fitted to them by cross-entropy (docs/method.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from taalm import processes
from taalm.checkpoint import under
from taalm.meta.hypergradient import as_leaves, gradients_of, loss_slopes
from taalm.meta.objectives import task_loss
from taalm.meta.problem import Lesson, Theta


def token_scores(theta: Theta, lesson: Lesson) -> Tensor:
    """s_t of a lesson of one document, (T-1,)."""
    lesson = theta.prepare(lesson)
    leaves = as_leaves(theta.theta_0)
    task = task_loss(theta.logits, lesson.probes, theta.theta_0, "task_nll")(leaves)
    fall = {name: gradient.sign() for name, gradient in gradients_of(task, leaves).items()}
    return loss_slopes(theta.token_losses(lesson.documents), theta.theta_0, fall).squeeze(0)


def target_shares(scores: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """The shares of a document's weight that phi is fitted to, (B, T-1), 0 where the mask is; each row sums to 1."""
    count = mask.sum(1, keepdim=True)
    centred = (scores - (scores * mask).sum(1, keepdim=True) / count) * mask
    deviation = (centred.square().sum(1, keepdim=True) / count).sqrt().clamp_min(torch.finfo(scores.dtype).tiny)
    logits = (centred / (temperature * deviation)).masked_fill(mask == 0, float("-inf"))
    return torch.softmax(logits, dim=1)


def fit_loss(weights: Tensor, shares: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of phi's shares of the weight to `shares`, mean over documents; all (B, T-1)."""
    weights = weights * mask
    found = weights / weights.sum(1, keepdim=True)
    logs = found.clamp_min(torch.finfo(found.dtype).tiny).log()
    return -(shares * logs * mask).sum(1).mean()


class TokenScores:
    """The scores of every document that was asked for: document index -> (real tokens - 1,)."""

    def __init__(self) -> None:
        self.known: dict[int, Tensor] = {}

    def batch(self, theta: Theta, lesson: Lesson, indices: Sequence[int]) -> Tensor:
        """The scores of a lesson's documents, (B, T-1), 0 on right padding; new ones are computed."""
        new = {}
        for row, index in enumerate(indices):
            if index not in self.known:
                one = lesson.rows([row])
                new[index] = token_scores(theta, one).cpu()
        self.known |= processes.gather(new)
        found = pad_sequence([self.known[index] for index in indices], batch_first=True)
        return found.to(lesson.documents.input_ids.device)

    def state(self) -> dict[str, Tensor]:
        return {f"scores/{index}": values for index, values in self.known.items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        self.known = {int(index): values for index, values in under(saved, "scores/").items()}
