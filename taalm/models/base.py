"""Load theta: a packaged model, a local folder or a hub id, bare or with an adapter."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from taalm import processes
from taalm.checkpoint import atomic_files
from taalm.errors import UserError
from taalm.models.freezing import freeze
from taalm.models.kadapter import KAdapterConfig
from taalm.models.low_rank import fuse_lora
from taalm.models.modular import add_modular
from taalm.models.packaged import PACKAGED, packaged_folder
from taalm.models.precision import Precision, freeze_linears, usable_device, wants_bf16
from taalm.models.sharding import shard
from taalm.models.split import output_head
from taalm.out_of_memory import is_out_of_memory

OWNERLESS = ("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b", "gpt2")  # hub ids of old, without an owner


@dataclass
class ModelConfig:
    """The base model theta and how it trains."""

    name: str = "smollm2-135m"
    """A packaged model (smollm2-135m), a local folder, or a hub id such as meta-llama/Llama-2-7b-hf."""
    adapter: Literal["lora", "qlora", "kadapter", "modular", "full"] = "lora"
    """What trains: LoRA, LoRA over nf4 weights, K-Adapter, a second encoder (encoder-decoders), or the weights."""
    freeze_level: Literal[0, 1, 2] | None = None
    """The base's own weights: 0 all train; 1 frozen in the encoder (of a decoder: the embeddings and the lower half of
    the layers); 2 all frozen. Default 2, and 0 for the adapter full."""
    r: PositiveInt = 16
    """LoRA rank."""
    alpha: PositiveInt = 16
    """LoRA scale numerator: updates are multiplied by alpha / r."""
    dropout: ClosedUnitInterval = 0.0
    """LoRA dropout."""
    lora_targets: Literal["all", "qv"] = "all"
    """LoRA: all linear layers but the head, or queries and values only."""
    first_layer: NonNegativeInt = 0
    """LoRA goes into the layers from this one up; those below cost a forward pass only."""
    kadapter_layers: list[int] = field(default_factory=list)
    """K-Adapter: the hidden states it reads (TAALM: [1, 15, -1] of 32 layers); default spread from 1 to the last."""
    kadapter_count: PositiveInt = 3
    """K-Adapter: how many adapters, where no hidden states are given."""
    kadapter_blocks: PositiveInt = 1
    """K-Adapter: blocks in each adapter."""
    kadapter_scale: float = 0.1
    """K-Adapter: what its normed output is multiplied by."""
    modular_encoder: str = ""
    """Modular: the pretrained second encoder (a folder or hub id); default a fresh one, half as wide, of 4 layers."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""
    precision: Precision = "auto"
    """bf16 or fp32 matrix products; auto takes bf16 where the device has it. What trains stays float32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    shard: bool = False
    """Every process holds a part of the weights (FSDP2); adaptation only, and not over nf4 weights."""


def model_source(name: str) -> str:
    """The folder or hub id that transformers loads `name` from."""
    if name in PACKAGED:
        return str(packaged_folder(name))
    if not Path(name).is_dir() and "/" not in name and name not in OWNERLESS:
        raise UserError(
            f"no model {name!r}: not packaged ({', '.join(PACKAGED)}), not a folder, not a hub id owner/name"
        )
    return name


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """No bars and reports from transformers while a model loads: unused heads and layers are meant to be unused."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def load_pretrained(auto_class: Any, name: str, **options: Any) -> Any:
    """`auto_class.from_pretrained` with failures told as one sentence; code that comes with a model is not run."""
    source = model_source(name)
    try:
        with quiet_loading():
            return auto_class.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as error:  # a damaged file raises nearly anything
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"cannot load {auto_class.__name__} from {source!r}: {reason}") from None


def load_tokenizer(name: str) -> Any:
    return load_pretrained(AutoTokenizer, name)


def language_model_class(shape: PretrainedConfig) -> Any:
    """The class of transformers for a language model of this configuration."""
    return AutoModelForSeq2SeqLM if shape.is_encoder_decoder else AutoModelForCausalLM


def load_model(
    name: str,
    four_bit: bool = False,
    auto_class: Any = None,
    device: str = "auto",
    precision: Precision = "auto",
    layers: int = 0,
    freeze_level: int = 2,
) -> tuple[nn.Module, Any]:
    """A model of transformers in eval mode, frozen as ModelConfig.freeze_level says, and its tokenizer.

    `auto_class` is by default that of a language model; `four_bit` loads nf4 weights by bitsandbytes, `layers` > 0
    keeps only the first so many. Raises UserError when the model cannot be had.
    """
    place = usable_device(device)
    bf16 = wants_bf16(precision, place)
    options: dict[str, Any] = {"dtype": torch.float32}
    if layers:
        there = load_pretrained(AutoConfig, name).num_hidden_layers
        if layers > there:
            raise UserError(f"{name} has {there} layers, not {layers}")
        options["num_hidden_layers"] = layers
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16 if bf16 else torch.float32,
            bnb_4bit_use_double_quant=True,
        )
        options["device_map"] = {"": place}
    if auto_class is None:
        auto_class = language_model_class(load_pretrained(AutoConfig, name))
    model, loaded = load_pretrained(auto_class, name, output_loading_info=True, **options)
    if lacking := sorted(loaded["missing_keys"]):  # transformers would make them up
        raise UserError(f"{name}: its weights lack {len(lacking)} tensors (for example {lacking[0]}); load it anew")
    freeze(model, freeze_level)
    model.config.use_cache = False
    freeze_linears(model, bf16)
    if not four_bit:  # those lie on their device already
        model.to(place)
    tokenizer = load_tokenizer(name)
    if model.config.is_encoder_decoder:  # every text of the decoder starts with it
        tokenizer.bos_token = tokenizer.convert_ids_to_tokens(model.config.decoder_start_token_id)
    return model.eval(), tokenizer


def add_lora(
    model: nn.Module, r: int, alpha: int, dropout: float, task_type: str | None = "CAUSAL_LM", first_layer: int = 0,
    which: Literal["all", "qv"] = "all",
) -> PeftModel:  # fmt: skip
    """LoRA on every linear layer but the head (PEFT's `all-linear`), or on queries and values (PEFT's default), from
    layer `first_layer` up.
    """
    layers = model.config.num_hidden_layers
    if not 0 <= first_layer < layers:
        raise UserError(f"first_layer {first_layer}: the model has layers 0 to {layers - 1}")
    targets: str | list[str] | None = "all-linear" if which == "all" else None
    if first_layer and which == "all":  # PEFT takes layers with a list of names only
        head = output_head(model)
        linear = [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
        targets = sorted({name.rpartition(".")[2] for name in linear})
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        layers_to_transform=list(range(first_layer, layers)) if first_layer else None,
        bias="none",
        task_type=task_type,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")  # GPT-2's Conv1D: PEFT sets it right itself
        try:
            found = get_peft_model(model, config)
        except ValueError as error:  # no layer of such a name
            raise UserError(f"LoRA on {which} layers: {str(error).splitlines()[0]}") from None
    named = config.target_modules  # a set, which is written in another order by every process
    config.target_modules = sorted(named) if isinstance(named, set) else named
    fuse_lora(found)
    return found


def kadapter_places(layers: int, count: int) -> list[int]:
    """Hidden states for `count` K-Adapters, spread from 1 to the end; 3 of 32 layers: 1, 15, -1, as published."""
    first, apart = int(layers >= count), max(1, (layers - 3) // max(1, count - 1))
    return [*(min(first + index * apart, layers - 1) for index in range(count - 1)), -1]


def add_adapter(model: nn.Module, config: ModelConfig) -> nn.Module:
    """The model with the adapter that `config` names; its own weights stay as frozen as they were."""
    unfrozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    if config.adapter == "kadapter":
        places = list(config.kadapter_layers) or kadapter_places(model.config.num_hidden_layers, config.kadapter_count)
        adapter = KAdapterConfig(
            layers=places, blocks=config.kadapter_blocks, scale=config.kadapter_scale, task_type=kind
        )
        model = get_peft_model(model, adapter)
    elif config.adapter == "modular":
        second = load_pretrained(AutoModelForTextEncoding, config.modular_encoder) if config.modular_encoder else None
        model = add_modular(model, second)
    else:
        lora = (config.r, config.alpha, config.dropout, kind, config.first_layer, config.lora_targets)
        model = add_lora(model, *lora)
    for parameter in unfrozen:
        parameter.requires_grad_(True)
    return model


def frozen_level(config: ModelConfig) -> int:
    """The freeze level that was given, else the adapter's."""
    if config.freeze_level is not None:
        return config.freeze_level
    return 0 if config.adapter == "full" else 2


def load_theta(config: ModelConfig) -> tuple[nn.Module, Any]:
    """theta ready to train: its trainable parameters have requires_grad, the rest is frozen. With its tokenizer."""
    four_bit, full = config.adapter == "qlora", config.adapter == "full"
    level = frozen_level(config)
    if config.shard and four_bit:
        raise UserError("shard: nf4 weights are not sharded; every process has room for all of them")
    if full and level == 2:
        raise UserError("freeze_level 2 freezes the whole base, and adapter full adds nothing to train")
    if four_bit and level < 2:
        raise UserError(f"freeze_level {level}: nf4 weights do not train; take the adapter lora, or level 2")
    if level == 0 and config.precision == "bf16":
        raise UserError("precision bf16 is for frozen layers; with all weights unfrozen they are float32")
    device = usable_device(config.device)
    model, tokenizer = load_model(
        config.name,
        four_bit,
        device="cpu" if config.shard else config.device,  # a shard is moved when it is cut
        precision="bf16" if wants_bf16(config.precision, device) else "fp32",
        freeze_level=level,
    )
    if four_bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if not full:
        model = add_adapter(model, config)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if config.shard:
        shard(model, device)
    return model, tokenizer


def save_adapter(model: nn.Module, folder: Path, scale: float = 1.0) -> None:
    """Write the adapter in PEFT's format, or the whole model; all processes must call it. LoRA's counts `scale` times.

    Raises UserError where it cannot be written; what lay there stays.
    """
    tensors = processes.collect(model.state_dict())
    if scale != 1:
        tensors = {name: scale * value if "lora_B" in name else value for name, value in tensors.items()}
    if processes.is_main():
        with atomic_files(folder) as scratch:
            model.save_pretrained(scratch, state_dict=tensors)


def position_limit(name: str) -> int | None:
    """How many tokens the model reads, or None where its configuration sets no limit."""
    config = load_pretrained(AutoConfig, name)
    return getattr(config, "max_position_embeddings", None)
