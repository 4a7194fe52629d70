"""The keys of the online wiki stream's configurations (configs/online/wiki), and the cell that they describe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from taalm.adapt import AdaptConfig
from taalm.benchmarks.online_forms import Form
from taalm.cell_config import CellConfig
from taalm.errors import UserError
from taalm.methods import METHODS, get_method
from taalm.models.base import ModelConfig
from taalm.models.precision import Precision
from taalm.optimizers.recadam import RecAdamConfig
from taalm.rehearsal import ReviewConfig
from taalm.shares import Share
from taalm.tracking import TrackConfig
from taalm.weighters.selective import RhoConfig

# what users type -> the method's name in taalm/methods.py, and what it sets of the model
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("finetune", {}),
    "vannila": ("finetune", {}),
    "baseline": ("finetune", {}),
    "kadapter_2": ("kadapter", {"kadapter_count": 2}),
    "kadapter2": ("kadapter", {"kadapter_count": 2}),
    "kadapter_3": ("kadapter", {"kadapter_count": 3}),
    "kadapter3": ("kadapter", {"kadapter_count": 3}),
    "modular": ("modular", {}),
    "modular_small": ("modular", {}),
    "mixreview": ("review", {}),
}


@dataclass
class StreamCellConfig(CellConfig):
    """A cell whose texts are single sentences that have an end."""

    train_script: ClassVar[str] = "online_wiki"
    released: ClassVar[bool] = False


@dataclass
class OnlineConfig:
    """Teach a model a stream of dated facts, one training call per date: python run.py --config FILE."""

    model: str = "smollm2-135m"
    """A packaged model (smollm2-135m), a local folder or a hub id: an encoder-decoder (t5-base) or a decoder."""
    method: str = "vanilla"
    """vanilla (or vannila, baseline), lora, kadapter_2, kadapter_3, modular, mixreview, recadam, targeted, rho, or any
    name of taalm/methods.py, several joined by +."""
    freeze_level: Literal[0, 1, 2] = 0
    """The base's own weights: 0 all train; 1 the encoder is frozen (a decoder's embeddings and lower half); 2 all."""
    dataset: Literal["wiki"] = "wiki"
    """The stream: wiki is the only one."""
    dataset_version: Literal["day", "month", "quarter"] = "month"
    """What a date of the stream is; the folder of its files."""
    data: str = ""
    """Folder with <dataset_version>/datesorted_{train,test}.jsonl; default data/online_wiki, else the downloaded set,
    else the sample."""
    form: Form = "prefix"
    """How facts are taught and asked: prefix (as published), or span (a masked salient span, as in CKL)."""
    limit: NonNegativeInt = 0
    """Take only the first so many facts of each date; 0 takes all."""
    input_length: PositiveInt = 18
    """The given text is cut to this many tokens, in training and when it is asked."""
    output_length: PositiveInt = 18
    """So many tokens are learned and said at most; an encoder-decoder says the context too, a decoder continues it."""
    num_train_epochs: PositiveInt = 1
    """Passes over each date's texts."""
    train_batch_size: PositiveInt = 8
    """Texts of full length in one forward pass of a process; of shorter ones it holds more."""
    gradient_accumulation_steps: PositiveInt = 3
    """Forward passes of a process for one update: with ngpu and train_batch_size, the texts of an update."""
    eval_batch_size: PositiveInt = 64
    """Queries that are answered together."""
    learning_rate: PositiveFloat = 3e-4
    """Learning rate."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """The optimizer, where the method has none of its own."""
    use_lr_scheduling: bool = False
    """Let the learning rate fall to 0 within each date."""
    beams: PositiveInt = 1
    """Beams of the answers' search; 1 is greedy."""
    output_dir: str = "results/online_wiki/run"
    """Folder of the run: result.pkl and .json, log.csv, stream.png, predictions/, checkpoints/."""
    output_log: str = ""
    """The CSV file with a line for each date; default log.csv in output_dir."""
    check_validation: bool = False
    """Train nothing: ask every date of the model in checkpoint_path (default the base) and write validation.csv."""
    checkpoint_path: str = ""
    """A date's checkpoint (a file of checkpoints/) to start from, or to check."""
    keep_checkpoints: NonNegativeInt = 1
    """Checkpoints of so many last dates are kept; 0 keeps all."""
    ngpu: NonNegativeInt = 1
    """Processes, on a GPU each where there are GPUs; more than 1 are started by torchrun. 0: one process on the CPU."""
    num_workers: NonNegativeInt = 0
    """Processes that prepare batches of queries and parse sentences; 0: none beside the main one."""
    use_deepspeed: bool = False
    """Hold weights, gradients and optimizer state in shards over the processes, as DeepSpeed's ZeRO does (by torch's
    FSDP2, so that nothing has to be installed); needs ngpu > 1."""
    lora_r: PositiveInt = 4
    """LoRA rank, on queries and values."""
    lora_alpha: PositiveInt = 16
    """LoRA scale numerator."""
    kadapter_blocks: PositiveInt = 2
    """K-Adapter: blocks in each adapter."""
    modular_encoder: str = ""
    """Modular: the pretrained second encoder (a folder or hub id such as t5-small); default a fresh small one."""
    buffer_size: PositiveInt = 10_000
    """Mix-review: texts of past dates that are kept to be learned again."""
    buffer_share: Share = 0.1
    """Mix-review: share of a date's texts with time-invariant relations that enter the buffer, at random; and of a
    date's texts that are joined by some from the buffer."""
    recadam: RecAdamConfig = field(default_factory=RecAdamConfig)
    rho: RhoConfig = field(default_factory=RhoConfig)
    ta_train: str = ""
    """Facts (LAMA-ckl rows) that rho's reference learns and kl replays; default ta/ta_train.jsonl beside the stream."""
    phi: str = ""
    """Folder of a trained phi for targeted; default the newest under phi_runs."""
    phi_runs: str = ""
    """Where to look for a trained phi; default runs/train_ta/online_wiki/<model>."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    precision: Precision = "auto"
    """bf16 or fp32 matrix products in frozen layers; auto takes bf16 where the device has it."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one."""
    track: TrackConfig = field(default_factory=TrackConfig)
    seed: int = 42
    """Seed of fresh weights, of the order of texts and of the buffer."""
    quiet: bool = False
    """No progress."""


def check(config: OnlineConfig) -> None:
    """Raises UserError for keys that do not go together."""
    if config.use_deepspeed and config.ngpu < 2:
        raise UserError("--use_deepspeed shards over processes: it needs --ngpu 2 or more")
    own_optimizer = get_method(method_of(config)[0]).optimizer != "plain"
    if config.use_deepspeed and config.optimizer == "adafactor" and not own_optimizer:
        raise UserError("--use_deepspeed: Adafactor's factored state cannot be sharded; take --optimizer adamw")


def method_of(config: OnlineConfig) -> tuple[str, dict[str, Any]]:
    """The method's name in taalm/methods.py and the model's settings. Raises UserError for an unknown name."""
    names, settings = [], {}
    for part in config.method.split("+"):
        if part not in NAMES and part not in METHODS:
            known = ", ".join([*NAMES, *sorted(set(METHODS) - set(NAMES))])
            raise UserError(f"--method {config.method}: {part!r} is unknown; the methods are {known}, also joined by +")
        name, own = NAMES.get(part, (part, {}))
        names.append(name)
        settings |= own
    return "+".join(names), settings


def cell_config(config: OnlineConfig, seq2seq: bool) -> CellConfig:
    """The cell of weighter x optimizer x rehearsal x base that the keys describe."""
    method, settings = method_of(config)
    processes = max(1, config.ngpu)
    tokens = config.output_length + (1 if seq2seq else config.input_length)  # the decoder's start token is not said
    model = ModelConfig(
        name=config.model,
        adapter="full",
        freeze_level=config.freeze_level,
        r=config.lora_r,
        alpha=config.lora_alpha,
        lora_targets="qv",
        kadapter_blocks=config.kadapter_blocks,
        modular_encoder=config.modular_encoder,
        device="cpu" if config.ngpu == 0 else config.device,
        precision=config.precision,
        shard=config.use_deepspeed,
        **settings,
    )
    adapt = AdaptConfig(
        epochs=config.num_train_epochs,
        optimizer=config.optimizer,
        lr=config.learning_rate,
        schedule="linear" if config.use_lr_scheduling else "constant",
        batch_size=config.train_batch_size * config.gradient_accumulation_steps * processes,
        token_budget=config.train_batch_size * tokens,
        weight_decay=config.weight_decay,
        max_length=tokens,
    )
    phi_runs = config.phi_runs or f"runs/train_ta/online_wiki/{Path(config.model).name}"
    return StreamCellConfig(
        method=method, model=model, adapt=adapt, rho=config.rho, recadam=config.recadam, review=ReviewConfig(),
        phi=config.phi, phi_runs=phi_runs, seed=config.seed, quiet=config.quiet,
    )  # fmt: skip
