"""--dry_run: what a run would train and need, worked out on the meta device, without weights.

The peak is a sum of tensors: weights as they are stored, what trains with its gradient and AdamW's two moments, what a
pass keeps in the layers that train, the head's part and, on a CPU, the program itself. Measured peaks of the packaged
model are within a fifth of it (docs/performance.md).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, LlamaConfig, PretrainedConfig

from taalm.adapt import AdaptConfig
from taalm.head_loss import CHUNK_BYTES
from taalm.meta.inner import InnerConfig
from taalm.meta.outer_config import OuterConfig
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
PROGRAM = 0.75 * 2**30  # on a CPU: the libraries and their working memory (a GPU's peak is counted without)
SPARE = 1.1  # of what a pass keeps: what one layer's backward pass has at a time


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


def kept(found: Sizes, tokens: float, r: int, first_layer: int = 0, checkpointing: bool = False) -> float:
    """Bytes that a forward pass over so many tokens keeps for the backward pass, float32, in layers that train.

    Of a token a layer keeps about 9 vectors of the hidden width (norms, attention), 4 of the feed-forward one and
    LoRA's 7 of rank r; with checkpointing what enters it, and all of it in one layer at a time.
    """
    shape = found.shape
    hidden, wide = shape.hidden_size, getattr(shape, "intermediate_size", None) or getattr(shape, "d_ff", 0)
    layers = shape.num_hidden_layers - first_layer
    one = 9 * hidden + 4 * (wide or 4 * hidden) + 7 * r
    return tokens * 4 * SPARE * (layers * hidden + one if checkpointing else layers * one)


def head_bytes(found: Sizes, tokens: float, trains: bool) -> float:
    """What the head takes: logits, softmax and gradient of all tokens where it trains, else of a chunk."""
    logits = tokens * found.shape.vocab_size * 4
    return 3 * (logits if trains else min(logits, CHUNK_BYTES))


def program(device: str) -> float:
    return PROGRAM if resolve_device(device).type == "cpu" else 0.0


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def text(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"{name:12}{value}" for name, value in rows)


def describe(model: ModelConfig, adapt: AdaptConfig, documents: int) -> str:
    """Sizes and estimates of adapting `model` to so many documents, as lines of text."""
    found = theta_sizes(model)
    updates = -(-documents // adapt.batch_size)
    lora = model.adapter in ("lora", "qlora")
    tokens = min(max(adapt.token_budget, adapt.max_length), adapt.batch_size * (adapt.max_length or adapt.token_budget))
    training = found.trained * 16
    passing = kept(found, tokens, model.r, model.first_layer if lora else 0, model.gradient_checkpointing)
    head = head_bytes(found, tokens, trains=frozen_level(model) == 0)
    peak = program(model.device) + found.weights + training + passing + head
    return text(
        [
            *found.rows(model.name, model.adapter),
            ("training", f"{gib(training)} (what trains, its gradient and AdamW's moments, float32)"),
            ("activations", f"{gib(passing)} for {tokens} tokens, and {gib(head)} at the head"),
            ("peak", f"about {gib(peak)}"),
            ("steps", f"{updates} updates an epoch, {updates * adapt.epochs} in all ({documents} documents)"),
        ]
    )


def describe_training(
    theta: ModelConfig, phi: TrainAttentionConfig, inner: InnerConfig, outer: OuterConfig, documents: int
) -> str:
    """Sizes and estimates of training phi, as lines of text. Documents are taken to be half of max_length."""
    base = theta_sizes(theta)
    bf16 = wants_bf16(phi.precision, resolve_device(theta.device))
    backbone = AutoModelForTextEncoding if shape_of(phi.backbone).is_encoder_decoder else AutoModel
    learned = sizes(
        phi.backbone, "qlora" if phi.four_bit else "lora",
        lambda bare: add_lora(bare, phi.r, phi.alpha, phi.dropout, task_type=None), bf16, backbone, phi.layers,
    )  # fmt: skip
    lora = theta.adapter in ("lora", "qlora")
    length = outer.max_length / 2
    if inner.mode == "joint":
        side_by_side, tokens = 1.0, outer.batch_size * length
    else:
        side_by_side = max(1.0, min(inner.token_budget / inner.steps / length, outer.batch_size)) if lora else 1.0
        tokens = side_by_side * length
    copies = 6 + inner.steps  # theta', its moments, u, the adjoint; each differentiated step's gradient
    steps = side_by_side * copies * base.trained * 4
    first = theta.first_layer if lora else 0
    passing = kept(base, tokens, theta.r, first, theta.gradient_checkpointing) + head_bytes(base, tokens, False)
    training = learned.trained * 16
    read = kept(learned, outer.batch_size * outer.max_length, phi.r, 0, phi.gradient_checkpointing)
    peak = program(theta.device) + base.weights + steps + passing + learned.weights + training + read
    epoch = -(-documents // outer.batch_size)
    count = f"{outer.all_steps} outer steps of {outer.batch_size} documents"
    return text(
        [
            ("theta", ""),
            *base.rows(theta.name, theta.adapter),
            ("inner steps", f"{gib(steps)} ({copies} copies of what trains, {side_by_side:.0f} theta' side by side)"),
            ("activations", f"{gib(passing)} for {tokens:.0f} tokens"),
            ("phi", ""),
            *learned.rows(phi.backbone, "qlora" if phi.four_bit else "lora"),
            ("training", f"{gib(training)} (what trains, its gradient and AdamW's moments, float32)"),
            ("activations", f"{gib(read)} for {outer.batch_size * outer.max_length} tokens"),
            ("peak", f"about {gib(peak)}"),
            ("steps", f"{count}; {epoch} go through all {documents}"),
        ]
    )
