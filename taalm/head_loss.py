"""-log p(target) straight from what enters a frozen language-model head: (N, V) logits are never held, only a chunk.

With h (H), the head's W (V, H), z = W h and p = softmax(z), the loss of a token is l = logsumexp(z) - z_y and
    dl/dh = W^T p - W_y          d(dl/dh) = W^T (p * (dz - p . dz)),  dz = W dh.
The slope dl/dh is computed together with l while a chunk's p is there, and kept: (N, H) in place of (N, V). The
backward pass is then g * slope and a forward-mode tangent slope . dh, neither of which multiplies by W again. Second
derivatives (a backward pass that is differentiated in either mode) recompute p by chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES, SMALLEST_CHUNK = 2**24, 16  # of logits; tokens (a chunk goes through all of W, so it must not be short)


@dataclass
class Known:
    """l and dl/dh of some tokens at some parameters, kept for a forward-mode pass at the same parameters."""

    values: Tensor | None = None
    slope: Tensor | None = None


def head_nll(hidden: Tensor, weight: Tensor, targets: Tensor, known: Known | None = None) -> Tensor:
    """-log p(target): hidden (N, H), the head's frozen weight (V, H), targets (N,) -> (N,) in hidden's type.

    An empty `known` is filled; a full one, of the same hidden values, saves a forward-mode pass all products with W.
    """
    if known is not None and known.slope is not None:
        return _Loss.apply(hidden, known.values, known.slope)
    dual = forward_ad.unpack_dual(hidden).tangent is not None
    if known is None and not dual and not (hidden.requires_grad and torch.is_grad_enabled()):
        return torch.cat([_softmax(z, y)[1] for _, z, y in _chunks(hidden, weight, targets)])
    # a forward-mode pass without a graph asks for no tangent of the slope
    values, slope = _Slope.apply(hidden, weight, targets, torch.is_grad_enabled())
    if known is not None:
        known.values, known.slope = values.detach(), slope.detach()
    return _Loss.apply(hidden, values, slope)


def _chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """(rows, their logits, their part of `targets`), chunk by chunk."""
    size = max(SMALLEST_CHUNK, CHUNK_BYTES // (4 * len(weight)))
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        yield rows, hidden[rows] @ weight.t(), targets[rows]


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """p (n, V) and -log p(target) (n,)."""
    top, place = logits.max(1, keepdim=True)
    p = torch.softmax(logits, 1)
    log_sum = top - p.gather(1, place).log()  # the likeliest token's p is at least 1 / V
    return p, (log_sum - logits.gather(1, targets[:, None])).squeeze(1)


class _Slope(torch.autograd.Function):
    """(l, dl/dh) of every token; its own derivatives are those of the slope alone (l's are `_Loss`'s)."""

    @staticmethod
    def forward(hidden: Tensor, weight: Tensor, targets: Tensor, curved: bool) -> tuple[Tensor, Tensor]:
        values, slope = hidden.new_empty(len(hidden)), torch.empty_like(hidden)
        for rows, logits, chosen in _chunks(hidden, weight, targets):
            p, values[rows] = _softmax(logits, chosen)
            torch.mm(p, weight, out=slope[rows])
        slope -= weight[targets]
        return values, slope

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        hidden, weight, targets, ctx.curved = inputs
        ctx.save_for_backward(hidden, weight, targets)
        ctx.save_for_forward(hidden, weight, targets)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, _, direction: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if direction is None:  # the first derivative: nothing asks for the slope's own
            return None, None, None, None
        return _curvature(*ctx.saved_tensors, direction), None, None, None

    @staticmethod
    def jvp(ctx, direction: Tensor, *_) -> tuple[Tensor, Tensor]:
        hidden = ctx.saved_tensors[0].detach()
        curve = _curvature(*ctx.saved_tensors, direction) if ctx.curved else torch.zeros_like(hidden)
        return hidden.new_zeros(len(hidden)), curve


def head_kl(hidden: Tensor, before: Tensor, weight: Tensor) -> Tensor:
    """KL(softmax(W before) || softmax(W hidden)), (N, H) twice and (V, H) -> (N,); only `hidden` gets a gradient."""
    return _Divergence.apply(hidden, before, weight)


class _Divergence(torch.autograd.Function):
    """KL, whose slope W^T (p - p_before) is computed with it by chunks, as l's is; differentiable once."""

    @staticmethod
    def forward(ctx, hidden: Tensor, before: Tensor, weight: Tensor) -> Tensor:
        values, slope = hidden.new_empty(len(hidden)), torch.empty_like(hidden)
        for rows, logits, start in _chunks(hidden, weight, before):
            log_p, log_before = logits.log_softmax(1), (start @ weight.t()).log_softmax(1)
            p_before = log_before.exp()
            values[rows] = log_before.sub_(log_p).mul_(p_before).sum(1)
            torch.mm(log_p.exp_().sub_(p_before), weight, out=slope[rows])
        ctx.save_for_backward(slope)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None


@torch.no_grad()
def _curvature(hidden: Tensor, weight: Tensor, targets: Tensor, direction: Tensor) -> Tensor:
    """The second derivative of l by h along `direction`, all (N, H); it is symmetric."""
    hidden = hidden.detach()  # in a forward-mode pass it is a dual
    found = torch.empty_like(hidden)
    for rows, logits, _ in _chunks(hidden, weight, targets):
        p, moved = torch.softmax(logits, 1), direction[rows] @ weight.t()
        p *= moved.sub_((p * moved).sum(1, keepdim=True))
        torch.mm(p, weight, out=found[rows])
    return found


class _Loss(torch.autograd.Function):
    """l, with the slope as its derivative by h."""

    @staticmethod
    def forward(hidden: Tensor, values: Tensor, slope: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, _, slope = inputs
        ctx.save_for_backward(slope)
        ctx.save_for_forward(slope)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient[:, None] * slope, None, None

    @staticmethod
    def jvp(ctx, direction: Tensor, *_) -> Tensor:
        (slope,) = ctx.saved_tensors
        return (slope.detach() * direction).sum(1)
