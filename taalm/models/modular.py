"""Modular (Jang et al. 2022, section 4.3): a second, smaller encoder beside the one of an encoder-decoder.

Both read the same tokens; the last states of the new one are projected to the base's width and added to the base's.
The projection starts at 0, so the model starts as the base.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForTextEncoding
from transformers.modeling_outputs import BaseModelOutput

from taalm.errors import UserError

FRESH_LAYERS = 4


class ModularEncoder(nn.Module):
    """The base's encoder with a projected second one added."""

    def __init__(self, base: nn.Module, second: nn.Module):
        super().__init__()
        self.base, self.second = base, second
        self.projection = nn.Linear(second.config.hidden_size, base.config.hidden_size, bias=False)
        nn.init.zeros_(self.projection.weight)
        self.main_input_name = base.main_input_name  # generate() asks for it

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> BaseModelOutput:
        """Last hidden states (B, S, H) of both, added."""
        base = self.base(input_ids=input_ids, attention_mask=attention_mask, **options)
        new = self.second(input_ids=input_ids, attention_mask=attention_mask)
        return BaseModelOutput(last_hidden_state=base[0] + self.projection(new.last_hidden_state))

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()


def fresh_encoder(shape: Any) -> nn.Module:
    """An untrained encoder of the base's kind, half as wide, of 4 layers at most."""
    small = copy.deepcopy(shape)
    if shape.model_type not in ("t5", "mt5", "umt5", "longt5"):
        raise UserError(f"no fresh second encoder for a {shape.model_type} model; name a pretrained one")
    for name in ("d_model", "d_ff", "num_heads"):
        setattr(small, name, max(1, getattr(small, name) // 2))
    small.num_layers = min(FRESH_LAYERS, small.num_layers)
    return AutoModelForTextEncoding.from_config(small)


def add_modular(model: nn.Module, second: nn.Module | None = None) -> nn.Module:
    """Put the second encoder (default a fresh one) beside the first. Raises UserError: no encoder, other tokens."""
    if not model.config.is_encoder_decoder:
        raise UserError("modular needs an encoder: take an encoder-decoder such as t5-base, or another method")
    base = model.get_encoder()
    if second is None:
        second = fresh_encoder(model.config)
    elif second.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"the second encoder has {second.config.vocab_size} tokens, the base {model.config.vocab_size}: they must "
            "share a tokenizer"
        )
    device = base.get_input_embeddings().weight.device
    model.encoder = ModularEncoder(base, second.to(torch.float32)).to(device)
    return model
