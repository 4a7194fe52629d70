"""--dry_run: what a run would train and need, worked out on the meta device, without weights.

The estimates are sums of tensors: weights as they are stored, AdamW's two moments and the gradient in float32, the
states that the backward pass keeps in the layers that train, and the logits of one forward pass.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, LlamaConfig, PretrainedConfig

from taalm.adapt import AdaptConfig
from taalm.meta.inner import InnerConfig
from taalm.meta.trainer import OuterConfig
from taalm.models.base import ModelConfig, add_adapter, add_lora, frozen_level, language_model_class, load_pretrained
from taalm.models.freezing import freeze
from taalm.models.precision import resolve_device, wants_bf16
from taalm.models.train_attention import TrainAttentionConfig

# the published models' shapes, so that no hub is needed
SHAPES: dict[str, dict] = {
    "meta-llama/Llama-2-7b-hf": {},  # LlamaConfig's defaults are this model's
    "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
}
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, its block's 8-bit scale, that scale's own scale
KEPT_PER_LAYER = 34  # bytes per token and hidden unit that a layer keeps for the backward pass


def shape_of(name: str) -> PretrainedConfig:
    """The configuration of a model, from the table above or from where the model lies."""
    return LlamaConfig(**SHAPES[name]) if name in SHAPES else load_pretrained(AutoConfig, name)


@dataclass(frozen=True)
class Sizes:
    """A model that would train: parameters, those of them that train, bytes of the weights as they are stored."""

    shape: PretrainedConfig
    parameters: int
    trained: int
    weights: float

    def rows(self, name: str, adapter: str) -> list[tuple[str, str]]:
        return [
            ("model", f"{name}, {self.parameters / 1e9:.2f}B parameters"),
            ("trainable", f"{self.trained / 1e6:.1f}M parameters ({adapter}; {self.trained:,})"),
            ("weights", f"{self.weights / 2**30:.1f} GiB"),
        ]


def sizes(
    name: str, adapter: str, add: Callable[[nn.Module], nn.Module], bf16: bool, auto_class: Any = None,
    layers: int = 0, level: int = 2,
) -> Sizes:  # fmt: skip
    """The sizes of a model frozen to `level`, with the adapter that `add` adds to it (a "full" model has none)."""
    shape = shape_of(name)
    if layers:
        shape.num_hidden_layers = layers
    with torch.device("meta"):
        model: nn.Module = (auto_class or language_model_class(shape)).from_config(shape)
        freeze(model, level)
        bare = sum(parameter.numel() for parameter in model.parameters())
        head = model.get_output_embeddings()
        linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        frozen = sum(weight.numel() for weight in linear if not weight.requires_grad)
        if adapter != "full":
            model = add(model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    stored = NF4_BYTES if adapter == "qlora" else 2.0 if bf16 else 4.0
    return Sizes(shape, bare, trained, frozen * stored + (bare - frozen) * 4)


def theta_sizes(model: ModelConfig) -> Sizes:
    bf16 = wants_bf16(model.precision, resolve_device(model.device))
    return sizes(model.name, model.adapter, lambda bare: add_adapter(bare, model), bf16, level=frozen_level(model))


def kept(shape: PretrainedConfig, tokens: int, first_layer: int = 0, head: bool = True) -> list[tuple[str, str]]:
    """What a forward pass over so many tokens keeps for the backward pass."""
    layers = shape.num_hidden_layers - first_layer
    activations = tokens * shape.hidden_size * KEPT_PER_LAYER * layers
    rows = [("activations", f"about {activations / 2**30:.1f} GiB for {tokens} tokens in {layers} layers")]
    logits = tokens * shape.vocab_size * 4 * 3  # logits, their softmax, its gradient
    return [*rows, ("logits", f"{logits / 2**30:.1f} GiB")] if head else rows


def text(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:12}{value}" for name, value in rows)


def describe(model: ModelConfig, adapt: AdaptConfig, documents: int) -> str:
    """Sizes and estimates of adapting `model` to so many documents, as lines of text."""
    found = theta_sizes(model)
    updates = -(-documents // adapt.batch_size)
    first = model.first_layer if model.adapter in ("lora", "qlora") else 0
    return text(
        [
            *found.rows(model.name, model.adapter),
            ("optimizer", f"{found.trained * 12 / 2**30:.1f} GiB (AdamW's moments and the gradient, float32)"),
            *kept(found.shape, max(adapt.token_budget, adapt.max_length), first),
            ("steps", f"{updates} updates an epoch, {updates * adapt.epochs} in all ({documents} documents)"),
        ]
    )


def describe_training(
    theta: ModelConfig, phi: TrainAttentionConfig, inner: InnerConfig, outer: OuterConfig, documents: int
) -> str:
    """Sizes and estimates of training phi, as lines of text."""
    base = theta_sizes(theta)
    bf16 = wants_bf16(phi.precision, resolve_device(theta.device))
    backbone = AutoModelForTextEncoding if shape_of(phi.backbone).is_encoder_decoder else AutoModel
    learned = sizes(
        phi.backbone, "qlora" if phi.four_bit else "lora",
        lambda bare: add_lora(bare, phi.r, phi.alpha, phi.dropout, task_type=None), bf16, backbone, phi.layers,
    )  # fmt: skip
    rows = 1 if inner.mode == "independent" else outer.batch_size
    copies = 4 + 3 * inner.steps  # theta', its moments, u; each differentiated step's parameters, gradient and state
    first = theta.first_layer if theta.adapter in ("lora", "qlora") else 0
    epoch = -(-documents // outer.batch_size)
    return text(
        [
            ("theta", ""),
            *base.rows(theta.name, theta.adapter),
            ("inner steps", f"{copies * base.trained * 4 / 2**30:.1f} GiB ({inner.steps} differentiated, float32)"),
            *kept(base.shape, rows * outer.max_length, first),
            ("phi", ""),
            *learned.rows(phi.backbone, "qlora" if phi.four_bit else "lora"),
            ("optimizer", f"{learned.trained * 12 / 2**30:.1f} GiB (AdamW's moments and the gradient, float32)"),
            *kept(learned.shape, outer.batch_size * outer.max_length, head=False),
            ("steps", f"{outer.steps} outer steps of {outer.batch_size} documents; {epoch} go through all {documents}"),
        ]
    )
