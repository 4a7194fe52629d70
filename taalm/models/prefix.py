"""The frozen prefix of theta: when only the layers from `first_layer` up train, what enters them is computed once.

A meta-step runs theta on the same documents four times or more; the layers below the first trained one give the same
states every time. They are computed once per batch, and the passes start from there (DESIGN 3: nothing below the
first trained parameter depends on it).
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from taalm.text import Batch


class _PassThrough(nn.Module):
    """Stands in for a layer whose output is given already."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


class _Reached(Exception):
    """Ends a forward pass at the first trained layer."""


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of a causal language model's blocks: the longest ModuleList in it."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def first_trained_layer(model: nn.Module) -> int:
    """The index of the first block with a trainable parameter; 0 when anything before the blocks trains too."""
    layers = decoder_layers(model)
    inside = {id(parameter) for parameter in layers.parameters()}
    if any(p.requires_grad and id(p) not in inside for p in model.parameters()):
        return 0
    trained = (any(p.requires_grad for p in layer.parameters()) for layer in layers)
    return next((index for index, trains in enumerate(trained) if trains), 0)


class FrozenPrefix:
    """Computes, once per batch, the states that enter theta's first trained layer, and skips the layers before it."""

    def __init__(self, model: nn.Module):
        self.model, self.layers = model, decoder_layers(model)
        self.first = first_trained_layer(model)

    @torch.no_grad()
    def states(self, batch: Batch) -> Tensor:
        """(B, T, H), what enters layer `first`."""
        found: list[Tensor] = []

        def capture(module: nn.Module, args: tuple, kwargs: dict) -> None:
            found.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        handle = self.layers[self.first].register_forward_pre_hook(capture, with_kwargs=True)
        try:
            with contextlib.suppress(_Reached):
                self.model(**batch.inputs())
        finally:
            handle.remove()
        return found[0]

    @contextlib.contextmanager
    def skipped(self) -> Iterator[None]:
        """Within the block the model takes `states` as inputs_embeds."""
        kept = list(self.layers[: self.first])
        try:
            for index in range(self.first):
                self.layers[index] = _PassThrough()
            yield
        finally:
            for index, layer in enumerate(kept):
                self.layers[index] = layer

    def works(self, batch: Batch) -> bool:
        """Whether starting from the states gives the model's own logits (not so where positions are added at the input)."""
        if self.first == 0:
            return False
        with torch.no_grad():
            whole = self.model(**batch.inputs()).logits
            inputs = batch.inputs()
            del inputs["input_ids"]
            states = self.states(batch)
            with self.skipped():
                short = self.model(inputs_embeds=states, **inputs).logits
        real = batch.attention_mask.bool()
        return torch.allclose(whole[real], short[real], rtol=1e-3, atol=1e-3)
