"""Gradients layer by layer: the graph of one layer at a time in place of the whole stack's.

A pass without a graph keeps what enters every layer. Then, from the last layer down, each is run again with its graph
and the chain rule goes through it: one more forward pass, for memory that does not grow with depth. torch's own
checkpointing runs layers again when the parameters that functional_call gave them are gone, and keeps tangents.
"""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.func import functional_call

from taalm.models.split import SplitModel
from taalm.text import Batch

CACHES = ("past_key_values", "past_key_value", "use_cache")  # a layer must not find its own keys when it is run again


def _leaf(value: Tensor) -> Tensor:
    """The same numbers, and the same tangent, to differentiate by."""
    primal, tangent = forward_ad.unpack_dual(value)
    leaf = primal.detach().requires_grad_()
    return leaf if tangent is None else forward_ad.make_dual(leaf, tangent.detach())


def _hidden(output: Tensor | tuple) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


class LayerwiseGradients:
    """Token losses and their gradients, of a model whose layers run one after the other and hold all that trains."""

    def __init__(self, split: SplitModel):
        self.split, self.layers = split, list(split.layers)[split.first :]
        names = {id(module): name for name, module in split.model.named_modules()}
        self.prefixes = [f"{names[id(layer)]}." for layer in self.layers]
        trained = [name for name, p in split.model.named_parameters() if p.requires_grad]
        inside = all(name.startswith(tuple(self.prefixes)) for name in trained)
        self.tail = copy(split)
        self.tail.first = len(split.layers)  # what comes after the layers, as a split model
        self._works: bool | None = None if inside and trained and not split.seq2seq else False

    def works_for(self, batch: Batch) -> bool:
        """Whether the model can be gone through this way; the first text that comes is tried."""
        if self._works is None:
            text = replace(batch.rows([0]), states=None)
            if not self.split.is_direct(text):
                self._works = False
                return False
            own = {name: p for name, p in self.split.model.named_parameters() if p.requires_grad}
            self._works = self.split.agree(
                lambda: self.split.token_losses(text), lambda: self(text, own, Tensor.sum)[0].detach()
            )  # not so where positions are added to what enters (GPT-2)
        return self._works

    @torch.enable_grad()
    def __call__(
        self, batch: Batch, parameters: Mapping[str, Tensor], weigh: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(l_t (B, T-1), gradients of weigh(l_t) by `parameters`); duals give duals."""
        inputs, last = self._record(batch, parameters)
        hidden = _leaf(last)
        losses = self.tail.token_losses(replace(batch, states=hidden))
        (slope,) = torch.autograd.grad(weigh(losses), [hidden])
        found: dict[str, Tensor] = {}
        for layer, prefix in zip(reversed(self.layers), reversed(self.prefixes), strict=True):
            (entering, *args), kwargs = inputs.pop()
            hidden = _leaf(entering)
            own = {name: p for name, p in parameters.items() if name.startswith(prefix)}
            short = {name.removeprefix(prefix): p for name, p in own.items()}
            output = _hidden(functional_call(layer, short, (hidden, *args), kwargs))
            slope, *gradients = torch.autograd.grad(
                output, [hidden, *own.values()], grad_outputs=slope, materialize_grads=True
            )
            found |= zip(own, gradients, strict=True)
        return losses, {name: found[name] for name in parameters}

    @torch.no_grad()
    def _record(self, batch: Batch, parameters: Mapping[str, Tensor]) -> tuple[list[tuple[tuple, dict]], Tensor]:
        """What each layer is called with, and what leaves the last one."""
        inputs: list[tuple[tuple, dict]] = []
        left: list[Tensor] = []

        def enter(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            kwargs = {name: value for name, value in kwargs.items() if name not in CACHES}
            inputs.append((args or (kwargs.pop("hidden_states"),), kwargs))

        def leave(_: nn.Module, args: tuple, output: Tensor | tuple) -> None:
            left.append(_hidden(output))

        handles = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in self.layers]
        handles.append(self.layers[-1].register_forward_hook(leave))
        try:
            self.split.head_input(batch, parameters)
        finally:
            for handle in handles:
                handle.remove()
        return inputs, left[0]
