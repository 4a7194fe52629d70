"""Train-Attention (phi): a backbone with LoRA and a linear head that predicts a weight for every token.

TAALM, section 3. The loss divides by the sum of the weights, so only their ratios matter, and an independent sigmoid
per token leaves a free direction: all weights can sink together. `softmax` weights, w = T softmax(z) over the
document's real tokens, are the same ratios without that direction: they average 1 by construction, the gradients of
the logits sum to 0, and nothing can drift (docs/method.md has the measurement). `sigmoid` is the published form.
"""

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding

from taalm.checkpoint import load_parameters, load_state, save_state, write_text
from taalm.config import from_values
from taalm.errors import UserError
from taalm.losses import target_mask
from taalm.models.base import add_lora, load_model, load_pretrained
from taalm.models.precision import Precision, usable_device
from taalm.text import position_ids

RELEASED = {"smollm2-135m": Path(__file__).parents[1] / "released" / "smollm2-135m"}  # by the model it is for


@dataclass
class TrainAttentionConfig:
    """Train-Attention (phi)."""

    backbone: str = "smollm2-135m"
    """The model under phi's head: packaged name, folder or hub id. It must share theta's tokenizer."""
    layers: NonNegativeInt = 0
    """Use only the backbone's first so many layers; 0 uses all."""
    r: PositiveInt = 16
    """LoRA rank."""
    alpha: PositiveInt = 16
    """LoRA scale numerator."""
    dropout: float = 0.0
    """LoRA dropout."""
    weights: Literal["softmax", "sigmoid", "softplus"] = "softmax"
    """Logits to weights: T * softmax over the document, an independent sigmoid (published) or softplus (CaMeLS)."""
    head_bias: float = 0.0
    """Initial bias of the head; the published recipe has 4.0 with sigmoid. No effect on softmax weights."""
    four_bit: bool = False
    """Load the backbone's weights as nf4."""
    precision: Precision = "auto"
    """bf16 or fp32 matrix products in the backbone; auto takes bf16 where the device has it."""
    gradient_checkpointing: bool = False
    """Recompute the backbone's activations in the backward pass."""


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A short hash of the vocabulary: two models with the same one split texts into the same ids."""
    listed = sorted((index, token) for token, index in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def softmax_weights(logits: Tensor, target: Tensor) -> Tensor:
    """w = T softmax(z): mean 1 over the T places of each row where `target` holds, 0 elsewhere; all of one shape."""
    share = torch.softmax(logits.masked_fill(~target, torch.finfo(logits.dtype).min), dim=1) * target
    return share * target.sum(1, keepdim=True)


class TrainAttention(nn.Module):
    """phi: (input_ids, attention_mask) -> weights, all (B, T). Built by `create` or `from_pretrained`."""

    def __init__(self, backbone: nn.Module, hidden_size: int, config: TrainAttentionConfig, tokenizer: Any):
        super().__init__()
        self.backbone, self.config, self.tokenizer = backbone, config, tokenizer
        self.takes_positions = "position_ids" in inspect.signature(backbone.get_base_model().forward).parameters
        self.head = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.head.weight)  # starts as fine-tuning: all weights equal
        nn.init.constant_(self.head.bias, config.head_bias)

    @classmethod
    def create(cls, config: TrainAttentionConfig, device: str = "auto") -> "TrainAttention":
        """A fresh phi over a pretrained backbone. Raises UserError when the backbone cannot be had."""
        seq2seq = load_pretrained(AutoConfig, config.backbone).is_encoder_decoder
        backbone, tokenizer = load_model(
            config.backbone,
            four_bit=config.four_bit,
            auto_class=AutoModelForTextEncoding if seq2seq else AutoModel,
            device=device,
            precision=config.precision,
            layers=config.layers,
        )
        hidden_size = backbone.config.hidden_size
        backbone = add_lora(backbone, config.r, config.alpha, config.dropout, task_type=None)
        if config.gradient_checkpointing:
            backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            backbone.enable_input_require_grads()
        return cls(backbone, hidden_size, config, tokenizer).to(usable_device(device))

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """z_t, (B, T) float32; z_t is read at the token's own position and sees the document up to it.

        The backbone of an encoder-decoder is its encoder; it reads what the decoder is to say and sees all of it.
        """
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.takes_positions:
            inputs["position_ids"] = position_ids(attention_mask)
        hidden = self.backbone(**inputs).last_hidden_state
        return self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)

    def to_weights(self, logits: Tensor, attention_mask: Tensor) -> Tensor:
        """Weights from logits, (B, T): 0 on padding and on BOS, which is nobody's target."""
        target = torch.zeros_like(attention_mask, dtype=torch.bool)
        target[:, 1:] = target_mask(attention_mask).bool()
        if self.config.weights != "softmax":
            return (torch.sigmoid if self.config.weights == "sigmoid" else F.softplus)(logits) * target
        return softmax_weights(logits, target)

    def weights(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token weights (B, T), non-negative; their scale has no meaning, their ratios within a document do."""
        return self.to_weights(self.logits(input_ids, attention_mask), attention_mask)

    forward = weights

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors (LoRA and head, not the backbone) into `folder`."""
        folder = Path(folder)
        described = {
            "train_attention": asdict(self.config),
            "tokenizer_fingerprint": tokenizer_fingerprint(self.tokenizer),
        }
        save_state(folder / "model.safetensors", self.trainable(), {})
        write_text(folder / "config.json", json.dumps(described, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "auto", trains: bool = False) -> "TrainAttention":
        """Load what `save_pretrained` wrote, in eval mode; a model's name ("smollm2-135m") gives its released phi.

        `trains`: to be trained further, so that LoRA and head take gradients. Raises UserError for a damaged or foreign
        folder.
        """
        folder = RELEASED.get(str(folder), Path(folder))
        described = folder / "config.json"
        try:
            values = json.loads(described.read_text(encoding="utf-8"))["train_attention"]
            phi = cls.create(from_values(TrainAttentionConfig, values), device)
        except OSError:
            raise UserError(f"{folder}: no Train-Attention here (config.json cannot be read)") from None
        except UserError as error:
            raise UserError(f"{described}: {error}") from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{described}: not a Train-Attention configuration ({error})") from None
        saved, _ = load_state(folder / "model.safetensors")
        load_parameters(phi.trainable(), saved, folder / "model.safetensors")
        return phi if trains else phi.requires_grad_(False).eval()

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raises UserError when theta's tokenizer is another one: the weights would fall on other tokens."""
        if tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(self.tokenizer):
            raise UserError(
                f"phi's backbone {self.config.backbone} and theta have different tokenizers; "
                "train phi on a backbone with theta's tokenizer (--phi.backbone)"
            )
