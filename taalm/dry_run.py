"""--dry_run: what a run would train and need, worked out on the meta device, without weights.

The estimates are sums of tensors: weights as they are stored, AdamW's two moments and the gradient in float32, the
states that the backward pass keeps in the layers that train, and the logits of one forward pass.
"""

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from taalm.adapt import AdaptConfig
from taalm.models.base import ModelConfig, add_adapter, load_pretrained
from taalm.models.precision import resolve_device, wants_bf16

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


def describe(model: ModelConfig, adapt: AdaptConfig, documents: int) -> str:
    """Sizes and estimates of adapting `model` to so many documents, as lines of text."""
    shape = shape_of(model.name)
    with torch.device("meta"):
        theta: nn.Module = AutoModelForCausalLM.from_config(shape)
        bare = sum(parameter.numel() for parameter in theta.parameters())
        linear = sum(m.weight.numel() for m in theta.modules() if isinstance(m, nn.Linear))
        head = theta.get_output_embeddings().weight.numel()
        if model.adapter != "full":
            theta.requires_grad_(False)
            theta = add_adapter(theta, model)
    trained = sum(parameter.numel() for parameter in theta.parameters() if parameter.requires_grad)
    frozen = 0 if model.adapter == "full" else linear - head
    stored = {"qlora": NF4_BYTES, "full": 4.0}.get(
        model.adapter, 2.0 if wants_bf16(model.precision, resolve_device(model.device)) else 4.0
    )
    weights = frozen * stored + (bare - frozen) * 4
    tokens = max(adapt.token_budget, adapt.max_length)
    layers = shape.num_hidden_layers - (model.first_layer if model.adapter in ("lora", "qlora") else 0)
    activations = tokens * shape.hidden_size * KEPT_PER_LAYER * layers
    logits = tokens * shape.vocab_size * 4 * 3  # logits, their softmax, its gradient
    updates = -(-documents // adapt.batch_size)
    rows = (
        ("model", f"{model.name}, {bare / 1e9:.2f}B parameters"),
        ("trainable", f"{trained / 1e6:.1f}M parameters ({model.adapter}; {trained:,})"),
        ("weights", f"{weights / 2**30:.1f} GiB"),
        ("optimizer", f"{trained * 12 / 2**30:.1f} GiB (AdamW's moments and the gradient, float32)"),
        ("activations", f"about {activations / 2**30:.1f} GiB for {tokens} tokens in {layers} layers"),
        ("logits", f"{logits / 2**30:.1f} GiB"),
        ("steps", f"{updates} updates an epoch, {updates * adapt.epochs} in all ({documents} documents)"),
    )
    return "\n".join(f"{name:12}{value}" for name, value in rows)
