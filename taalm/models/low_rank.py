"""LoRA layers that compute y = y0 + s (x A^T) B^T as one Function, in few passes over memory in either mode.

A (r, in) and B (out, r) are shared by the batch, or (documents, r, in) and (documents, out, r): then document b of x
has its own. The backward pass is made of differentiable operations.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners import lora
from torch import Tensor, nn


class Misaligned(Exception):
    """A layer's inputs are not (documents, tokens, width): a document's weights cannot find its tokens."""


def _plus_product(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """total + left @ right for right (r, out) or (B, r, out)."""
    if right.dim() == 3:
        return torch.baddbmm(total, left, right)
    return torch.addmm(total.flatten(0, -2), left.flatten(0, -2), right).view(total.shape)


def _outer(left: Tensor, right: Tensor, like: Tensor) -> Tensor:
    """left^T right over tokens: (..., a) and (..., b) -> (a, b), or (B, a, b) where `like` is by document."""
    if like.dim() == 3:
        return left.mT @ right
    return left.flatten(0, -2).t() @ right.flatten(0, -2)


class LowRankSum(torch.autograd.Function):
    """y0 (..., out), x (..., in), A, B, s -> y0 + s (x A^T) B^T."""

    @staticmethod
    def forward(y0: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        low = (x @ a.mT).mul_(scale)
        return _plus_product(y0, low, b.mT), low

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, x, a, b, ctx.scale = inputs
        ctx.save_for_backward(x, a, b, output[1])
        ctx.save_for_forward(x, a, b, output[1])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, gradient: Tensor | None, low_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        x, a, b, low = ctx.saved_tensors
        if gradient is None and low_gradient is None:
            return None, None, None, None, None
        low_bar, b_bar = low_gradient, None
        if gradient is not None:
            b_bar, back = _outer(gradient, low, b), gradient @ b
            low_bar = back if low_bar is None else low_bar + back
        low_bar = low_bar * ctx.scale
        x_bar = low_bar @ a if ctx.needs_input_grad[1] else None
        return gradient, x_bar, _outer(low_bar, x, a), b_bar, None

    @staticmethod
    def jvp(ctx, y0_tangent, x_tangent, a_tangent, b_tangent, _):
        x, a, b, low = (part.detach() for part in ctx.saved_tensors)
        moved = x_tangent @ a.mT if x_tangent is not None else torch.zeros_like(low)
        if a_tangent is not None:
            moved = _plus_product(moved, x, a_tangent.mT)
        moved = moved * ctx.scale
        y = _plus_product(y0_tangent if y0_tangent is not None else torch.zeros_like(low @ b.mT), moved, b.mT)
        return y if b_tangent is None else _plus_product(y, low, b_tangent.mT), moved


class DocumentLinear(nn.Linear):
    """One of LoRA's two layers: an nn.Linear without bias whose weight may be (documents, out, in)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return F.linear(x, self.weight)
        _check_alignment(x, self.weight)
        return x @ self.weight.mT


def _check_alignment(x: Tensor, weight: Tensor) -> None:
    if x.dim() != 3 or len(x) != len(weight):
        raise Misaligned


class FusedLora(lora.Linear):
    """PEFT's LoRA layer with one active adapter; anything else that PEFT can do goes PEFT's own way."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        (name, *more), usual = self.active_adapters, not (args or kwargs or self.lora_variant)
        if more or not usual or self.disable_adapters or self.merged or name not in self.lora_A:
            return super().forward(x, *args, **kwargs)
        y0, a, b = self.base_layer(x), self.lora_A[name].weight, self.lora_B[name].weight
        x = self.lora_dropout[name](x)
        if not y0.dtype == x.dtype == a.dtype:
            return y0 + (self.lora_B[name](self.lora_A[name](x.to(a.dtype))) * self.scaling[name]).to(y0.dtype)
        if a.dim() == 3:
            _check_alignment(x, a)
        return LowRankSum.apply(y0, x, a, b, self.scaling[name])[0]


def fuse_lora(model: nn.Module) -> None:
    """Turn PEFT's LoRA layers of `model` into these."""
    for module in model.modules():
        if isinstance(module, lora.LoraLayer):
            for layer in (*module.lora_A.values(), *module.lora_B.values()):
                if type(layer) is nn.Linear and layer.bias is None:
                    layer.__class__ = DocumentLinear
        if type(module) is lora.Linear and all(layer.bias is None for layer in module.lora_B.values()):
            module.__class__ = FusedLora


def learns_by_document(model: nn.Module) -> bool:
    """Whether all that trains in `model` are LoRA weights that every document can have its own of."""
    own = {id(module.weight) for module in model.modules() if isinstance(module, DocumentLinear)}
    return all(id(parameter) in own for parameter in model.parameters() if parameter.requires_grad)
