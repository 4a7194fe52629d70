"""K-Adapter (Wang et al. 2021, section 3) as a PEFT method: blocks beside a frozen model, added to it at the end.

Adapter i takes the hidden state at its layer plus the output of adapter i-1 through blocks of the base model's own
layer class; the last output is added to the final state: state + scale * LayerNorm(output). After
`import taalm.models.kadapter`, `get_peft_model`, `save_pretrained` and `PeftModel.from_pretrained` know it.
TAALM's placement is layers [1, 15, -1] of Llama-2-7B, one block each, scale 0.1. On T5 the adapters read the encoder,
as in CKL (Jang et al. 2022).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from taalm.errors import UserError
from taalm.models.split import decoder_layers

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")


def _add_peft_type(name: str) -> PeftType:
    """A member of PEFT's enumeration, which has no public way to add one."""
    if name not in PeftType.__members__:
        member = str.__new__(PeftType, name)
        member._name_, member._value_ = name, name
        PeftType._member_map_[name] = member
        PeftType._value2member_map_[name] = member
        PeftType._member_names_.append(name)
        type.__setattr__(PeftType, name, member)
    return PeftType[name]


KADAPTER = _add_peft_type("KADAPTER")


@dataclass
class KAdapterConfig(PeftConfig):
    """Where the adapters sit. `layers` are hidden states: 0 the embeddings, i what layer i takes, -1 the end."""

    layers: list[int] = field(default_factory=lambda: [1, 15, -1])
    blocks: int = 1
    scale: float = 0.1
    target_modules: str | None = None  # the final norm; found when the adapter is made

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = KADAPTER


class _Taken:
    """What a layer of the base model was called with in the present forward pass."""

    def __init__(self, layer: nn.Module):
        self.state: Tensor | None = None
        self.args: tuple = ()
        self.kwargs: dict[str, Any] = {}
        layer.register_forward_pre_hook(self._take, with_kwargs=True)

    def _take(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.state = args[0] if args else kwargs["hidden_states"]
        self.args, self.kwargs = args[1:], {key: value for key, value in kwargs.items() if key != "hidden_states"}

    def make_room(self, count: int) -> None:
        """For so many layers in the cache of past keys, where there is one."""
        for cache in (*self.args, *self.kwargs.values()):
            if isinstance(cache, Cache):
                cache.layers.extend(DynamicLayer() for _ in range(count - len(cache.layers)))


class KAdapterLayer(nn.Module, BaseTunerLayer):
    """The base model's final norm with the adapters' output added."""

    adapter_layer_names = ("kadapter_blocks", "kadapter_norm")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: KAdapterConfig, model: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        self.kadapter_blocks, self.kadapter_norm = nn.ModuleDict(), nn.ModuleDict()
        self._disable_adapters, self.merged_adapters = False, []
        self.settings: dict[str, KAdapterConfig] = {}
        self.share = 1.0  # see taalm.scaling
        self.taken: dict[str, list[_Taken]] = {}
        self.cached_layers: dict[str, int] = {}
        self.update_layer(adapter_name, config, model)

    def update_layer(self, adapter_name: str, config: KAdapterConfig, model: nn.Module) -> None:
        """Make the adapter's blocks, fresh, and the hooks that feed them."""
        layers = decoder_layers(model)
        for index in config.layers:
            if not -1 <= index < len(layers):
                raise UserError(f"K-Adapter layer {index}: the model has hidden states 0 to {len(layers) - 1}, and -1")
        self.settings[adapter_name] = config
        self.taken[adapter_name] = [_Taken(layers[index]) for index in config.layers]
        made, place = nn.ModuleDict(), max(self.cached_layers.values(), default=len(layers))
        for number in range(len(config.layers)):
            for depth in range(config.blocks):
                block = type(layers[0])(model.config, layer_idx=0)
                for module in block.modules():
                    if hasattr(module, "layer_idx"):  # its own place in a cache, after the base model's layers
                        module.layer_idx = place + len(made)
                block.apply(model._init_weights)
                made[f"{number}_{depth}"] = block
        self.cached_layers[adapter_name] = place + len(made)
        weight = self.base_layer.weight
        self.kadapter_blocks[adapter_name] = made.to(weight.device)
        self.kadapter_norm[adapter_name] = nn.LayerNorm(weight.shape[-1]).to(weight.device)
        self.set_adapter(adapter_name, inference_mode=config.inference_mode)

    def forward(self, hidden: Tensor) -> Tensor:
        last = self.base_layer(hidden)
        if self.disable_adapters:
            return last
        result = last
        for name in self.active_adapters:
            config, output = self.settings[name], torch.zeros_like(last)
            for number, (index, taken) in enumerate(zip(config.layers, self.taken[name], strict=True)):
                output = output + (last if index == -1 else taken.state)
                taken.make_room(self.cached_layers[name])
                for depth in range(config.blocks):
                    found = self.kadapter_blocks[name][f"{number}_{depth}"](output, *taken.args, **taken.kwargs)
                    output = found[0] if isinstance(found, tuple) else found
            result = result + self.share * config.scale * self.kadapter_norm[name](output)
        return result


class KAdapterModel(BaseTuner):
    """PEFT's tuner: puts one KAdapterLayer in the place of the final norm."""

    prefix: str = "kadapter_"
    tuner_layer_cls = KAdapterLayer
    target_module_mapping: Mapping[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: KAdapterConfig, model_config: dict) -> KAdapterConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = final_norm(self.model)
        return peft_config

    def _create_and_replace(
        self, peft_config: KAdapterConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module,
        current_key: str, **options: Any,
    ) -> None:  # fmt: skip
        if isinstance(target, KAdapterLayer):
            target.update_layer(adapter_name, peft_config, self.model)
        else:
            setattr(parent, target_name, KAdapterLayer(target, adapter_name, peft_config, self.model))


def final_norm(model: nn.Module) -> str:
    """The name of the norm after a model's last layer. Raises UserError for a model that has none of a known name."""
    layers = decoder_layers(model)
    for name, module in model.named_modules():
        if any(child is layers for child in module.children()):
            for child in FINAL_NORMS:
                if hasattr(module, child):
                    return f"{name}.{child}" if name else child
    raise UserError(f"{type(model).__name__}: K-Adapter finds no norm after its last layer ({', '.join(FINAL_NORMS)})")


register_peft_method(name="kadapter", config_cls=KAdapterConfig, model_cls=KAdapterModel)
