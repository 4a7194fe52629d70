"""A model split at its first trained layer: what enters that layer is computed once per text and reused.

When only the layers from `first_layer` up train, the layers below give the same states in every pass and every epoch.
Meta-steps, adaptation and scoring run them once (nothing below the first trained parameter depends on it).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.func import functional_call

from taalm.text import Batch


class _PassThrough(nn.Module):
    """Stands in for a layer whose output is given already."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


class _Reached(Exception):
    """Ends a forward pass at the first trained layer."""


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """A language model's blocks: its longest ModuleList, lists in lists aside (T5: the encoder's); or an empty one."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inner = {id(module) for found in lists for module in found.modules() if module is not found}
    return max((found for found in lists if id(found) not in inner), key=len, default=nn.ModuleList())


def first_trained_layer(model: nn.Module) -> int:
    """The index of the first block with a trainable parameter; 0 when anything outside the blocks trains too."""
    layers = decoder_layers(model)
    inside = {id(parameter) for parameter in layers.parameters()}
    if any(p.requires_grad and id(p) not in inside for p in model.parameters()):
        return 0
    trained = (any(p.requires_grad for p in layer.parameters()) for layer in layers)
    return next((index for index, trains in enumerate(trained) if trains), 0)


class SplitModel:
    """A causal language model that starts at its first trained layer for batches that carry `states`.

    `call` runs it with other parameters: functional_call, or replacement.injected_call.
    """

    def __init__(self, model: nn.Module, call: Callable[..., Any] = functional_call):
        self.model, self.layers, self.call = model, decoder_layers(model), call
        self.first = first_trained_layer(model)
        self.seq2seq: bool = model.config.is_encoder_decoder
        # known after the first batch; a sharded model and an encoder-decoder are gone through from end to end
        whole = not self.first or self.seq2seq or isinstance(model, FSDPModule)
        self._works: bool | None = False if whole else None

    def logits(self, batch: Batch, parameters: Mapping[str, Tensor] | None = None, **options: Any) -> Tensor:
        """Logits (B, T, V), with `parameters` in place of the model's own where given; the model is not changed."""
        columns = (
            options.pop("logits_to_keep", None) if self.seq2seq else None
        )  # of all T places, for an encoder-decoder
        inputs: dict[str, Any] = {**batch.inputs(), **options}
        skip: contextlib.AbstractContextManager = contextlib.nullcontext()
        if batch.states is not None:
            inputs["inputs_embeds"] = batch.states
            del inputs["input_ids"]
            skip = self._skipped()
        with skip:
            if parameters is None:
                logits = self.model(**inputs).logits
            else:
                logits = self.call(self.model, dict(parameters), kwargs=inputs).logits
        return logits if columns is None else logits[:, columns]

    def with_states(self, batch: Batch) -> Batch:
        """The batch with the states that enter the first trained layer, or as it is where they cannot be used."""
        if self._works is False:
            return batch
        with torch.random.fork_rng():  # the caller's dropout must not depend on what is computed here
            ready = replace(batch, states=self._states(batch))
            if self._works is None:
                self._works = self._agree(batch, ready)
        return ready if self._works else batch

    @torch.no_grad()
    def _states(self, batch: Batch) -> Tensor:
        """(B, T, H)."""
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

    @torch.no_grad()
    def _agree(self, whole: Batch, short: Batch) -> bool:
        """Whether both ways give the same logits; not so for a model that adds positions to inputs_embeds (GPT-2)."""
        real, found = whole.attention_mask.bool(), []
        for batch in (whole, short):
            torch.manual_seed(0)  # the same dropout in the trained layers
            found.append(self.logits(batch)[real])
        return torch.allclose(*found, rtol=1e-3, atol=1e-3)

    @contextlib.contextmanager
    def _skipped(self) -> Iterator[None]:
        """Within the block the model takes states as inputs_embeds."""
        kept = list(self.layers[: self.first])
        try:
            for index in range(self.first):
                self.layers[index] = _PassThrough()
            yield
        finally:
            for index, layer in enumerate(kept):
                self.layers[index] = layer
