"""A model split at its first trained layer and at its head.

When only the layers from `first_layer` up train, the layers below give the same states in every pass and every epoch.
Meta-steps, adaptation and scoring run them once (nothing below the first trained parameter depends on it). Where the
head is a frozen matrix, token losses come straight from what enters it (taalm.head_loss).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.func import functional_call

from taalm.head_loss import Known, head_nll
from taalm.losses import target_mask, token_nll
from taalm.text import Batch


class _PassThrough(nn.Module):
    """Stands in for a layer whose output is given already."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


class _Reached(Exception):
    """Ends a forward pass at a module."""


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


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer that makes a language model's logits, or None where a model (a backbone) has none."""
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None


def frozen_head(model: nn.Module) -> nn.Linear | None:
    """The matrix that makes logits, where it has no bias, does not train and is not shared out over processes."""
    head = output_head(model)
    plain = isinstance(head, nn.Linear) and head.bias is None and head.weight.is_floating_point()
    if not plain or head.weight.requires_grad or isinstance(model, FSDPModule):
        return None
    return head


@contextlib.contextmanager
def _stopped(module: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Within the block a forward pass ends where it would enter `module`; what would enter it is put into `found`."""

    def capture(module: nn.Module, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = module.register_forward_pre_hook(capture, with_kwargs=True)
    try:
        with contextlib.suppress(_Reached):
            yield
    finally:
        handle.remove()


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
        self.head = frozen_head(model)
        self._direct: bool | None = None if self.head is not None else False

    def logits(
        self, batch: Batch, parameters: Mapping[str, Tensor] | None = None,
        places: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (B, T, V), or (N, V) at `places` (rows, columns), with `parameters` in place of the model's own."""
        if places is None:
            return self._run(batch, parameters).logits
        if self.is_direct(batch):
            return self.head(self.head_input(batch, parameters)[places])
        rows, columns = places
        if self.seq2seq:
            return self._run(batch, parameters).logits[places]
        kept, where = columns.unique(return_inverse=True)  # one index list serves every row of the batch
        return self._run(batch, parameters, logits_to_keep=kept).logits[rows, where]

    def _run(self, batch: Batch, parameters: Mapping[str, Tensor] | None, **options: Any) -> Any:
        """The model's output; the model is not changed."""
        inputs: dict[str, Any] = {**batch.inputs(), **options}
        skip: contextlib.AbstractContextManager = contextlib.nullcontext()
        if batch.states is not None:
            inputs["inputs_embeds"] = batch.states
            del inputs["input_ids"]
            skip = self._skipped()
        with skip:
            if parameters is None:
                return self.model(**inputs)
            return self.call(self.model, dict(parameters), kwargs=inputs)

    def head_input(self, batch: Batch, parameters: Mapping[str, Tensor] | None) -> Tensor:
        """What enters the head, (B, T, H)."""
        found: list[Tensor] = []
        with _stopped(self.head, found):
            self._run(batch, parameters)
        return found[0]

    def token_losses(
        self, batch: Batch, parameters: Mapping[str, Tensor] | None = None, known: Known | None = None,
        asked: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """l_t (B, T-1), 0 on padding; all tokens' logits are held only where the head trains or does more than W h.

        `known` as in taalm.head_loss: kept from one pass for a forward-mode pass at the same parameters.
        `asked` (B, T-1), true where l_t is wanted, saves the head the other tokens: theirs is 0.
        """
        wanted = target_mask(batch.attention_mask).bool()
        if asked is not None:
            wanted &= asked
        if self.is_direct(batch):
            return self._direct_losses(batch, wanted, parameters, known)
        losses = token_nll(self.logits(batch, parameters), batch.input_ids)
        return losses * wanted

    def is_direct(self, batch: Batch) -> bool:
        """Whether losses come without logits; the first text that comes is tried."""
        if self._direct is None:
            text = batch.rows([0])
            real = target_mask(text.attention_mask).bool()
            self._direct = self.agree(
                lambda: token_nll(self.logits(text), text.input_ids) * real, lambda: self._direct_losses(text, real)
            )  # not so where logits are scaled or capped
        return self._direct

    def _direct_losses(
        self, batch: Batch, wanted: Tensor, parameters: Mapping[str, Tensor] | None = None, known: Known | None = None
    ) -> Tensor:
        hidden, targets = self.head_input(batch, parameters)[:, :-1][wanted], batch.input_ids[:, 1:][wanted]
        losses = head_nll(hidden, self.head.weight, targets, known)
        return torch.zeros(wanted.shape, dtype=losses.dtype, device=losses.device).masked_scatter(wanted, losses)

    @staticmethod
    @torch.no_grad()
    def agree(*ways: Callable[[], Tensor]) -> bool:
        """Whether two ways give the same numbers, with the same dropout; the caller's stays what it would have been."""
        found = []
        with torch.random.fork_rng():
            for way in ways:
                torch.manual_seed(0)
                found.append(way())
        return torch.allclose(*found, rtol=1e-3, atol=1e-3)

    def with_states(self, batch: Batch) -> Batch:
        """The batch with the states that enter the first trained layer, or as it is where they cannot be used."""
        if not self.skips_layers(batch):
            return batch
        with torch.random.fork_rng():  # the caller's dropout must not depend on what is computed here
            return replace(batch, states=self.entering(batch, self.first))

    def skips_layers(self, batch: Batch) -> bool:
        """Whether batches can start at the first trained layer; the first text that comes is tried."""
        if self._works is None:
            text = batch.rows([0])
            with torch.random.fork_rng():
                short = replace(text, states=self.entering(text, self.first))
            # not so for a model that adds positions to inputs_embeds (GPT-2)
            self._works = self.agree(lambda: self.logits(text), lambda: self.logits(short))
        return self._works

    @torch.no_grad()
    def entering(self, batch: Batch, layer: int) -> Tensor:
        """What enters a layer, (B, T, H), whether it trains or not; no layer from there on is computed."""
        if isinstance(self.model, FSDPModule):  # a pass that ends early would leave shards gathered
            return self._run(batch, None, output_hidden_states=True, logits_to_keep=1).hidden_states[layer]
        found: list[Tensor] = []
        with _stopped(self.layers[layer], found):
            self._run(batch, None)
        return found[0]

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
