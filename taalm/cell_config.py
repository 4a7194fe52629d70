"""What a cell of weighter x optimizer x rehearsal x base is configured by, and the phi that it takes."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from jsonargparse.typing import ClosedUnitInterval

from taalm.adapt import AdaptConfig
from taalm.errors import UserError
from taalm.methods import get_method
from taalm.models.base import ModelConfig
from taalm.models.train_attention import RELEASED
from taalm.optimizers.recadam import RecAdamConfig
from taalm.readout import ReadoutConfig
from taalm.rehearsal import ReviewConfig
from taalm.shares import Share
from taalm.tracking import TrackConfig
from taalm.views import ViewsConfig
from taalm.weighters.selective import RhoConfig


@dataclass
class CellConfig:
    """Adapt theta to documents with one method."""

    train_script: ClassVar[str] = "lama_ckl"  # of scripts/train_TA: makes this benchmark's phi
    released: ClassVar[bool] = True  # whether the released phi suits its texts

    method: str = "finetune"
    """A method of taalm/methods.py (finetune, targeted, oracle, rho, recadam, review, ...), or several joined by +."""
    model: ModelConfig = field(default_factory=ModelConfig)
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    rho: RhoConfig = field(default_factory=RhoConfig)
    recadam: RecAdamConfig = field(default_factory=RecAdamConfig)
    review: ReviewConfig = field(default_factory=ReviewConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    weights: str = ""
    """Weights for the method given: a jsonl file, a line for each document (taalm.ceiling makes one)."""
    known_above: Share = 1.0
    """Tokens to which theta_0 gives at least this probability get weight 0 (known-token masking); 1 masks none."""
    drop_below: ClosedUnitInterval = 0.0
    """Tokens that weigh less than this share of their document's heaviest get weight 0; 0 drops none."""
    phi: str = ""
    """Folder of a trained phi for targeted; default the newest under --phi_runs, else the released one."""
    phi_runs: str = "runs/train_ta/lama_ckl"
    """Where to look for a trained phi."""
    seed: int = 42
    """Seed of the adapter's fresh weights and of the order of documents."""
    quiet: bool = False
    """No progress."""
    track: TrackConfig = field(default_factory=TrackConfig)
    dry_run: bool = False
    """Print what would train and what it would need, without weights, and stop."""


def trained_phis(config: CellConfig) -> list[Path]:
    """The phis under --phi_runs, the newest by its file's time last."""
    found = Path(config.phi_runs).glob("*/phi/model.safetensors")
    return [path.parent for path in sorted(found, key=lambda path: (path.stat().st_mtime, path))]


def find_phi(config: CellConfig) -> Path:
    """The phi that was given, the newest trained one, the released one. Raises UserError, saying how to make one."""
    if config.phi:
        return Path(config.phi)
    found = trained_phis(config)
    if not found and config.released and config.model.name in RELEASED:
        return RELEASED[config.model.name]
    if not found:
        raise UserError(
            f"no trained phi under {config.phi_runs}; make one with "
            f"`bash scripts/train_TA/{config.train_script}.sh`, or name one with --phi FOLDER"
        )
    return found[-1]


def resolve_model(config: CellConfig) -> ModelConfig:
    """The base model with the adapter that the method asks for, else the configured one."""
    return replace(config.model, adapter=get_method(config.method).adapter or config.model.adapter)


def settle_phi(config: CellConfig) -> None:
    """Write the phi that the method takes into `config.phi`: a run stays with it, whatever is trained later."""
    if get_method(config.method).takes_phi:
        there = len(trained_phis(config)) if not config.phi else 0
        config.phi = str(find_phi(config))
        chosen = f" (by its file's time the newest of {there}; --phi names another)" if there > 1 else ""
        print(f"{config.method}: phi from {config.phi}{chosen}")


def method_inputs(config: CellConfig) -> dict[str, bytes]:
    """What the method reads beside the documents, by flag (taalm.run_folder.claim)."""
    found = (
        {"phi": RELEASED.get(config.phi, Path(config.phi)) / "model.safetensors"}
        if get_method(config.method).takes_phi
        else {}
    )
    found |= {"weights": Path(config.weights)} if config.weights else {}
    asks = get_method(config.method).views and config.views.questions
    found |= {"views.questions": Path(config.views.questions)} if asks else {}
    reads = get_method(config.method).readout and config.readout.facts
    found |= {"readout.facts": Path(config.readout.facts)} if reads else {}
    return {flag: file.read_bytes() for flag, file in found.items() if file.is_file()}


def phi_report(config: CellConfig) -> dict[str, Any]:
    """What taalm.train_ta reported of the method's phi; {} for a method without one, or one without its report.

    Raises UserError for a file beside it that is no such report.
    """
    folder = Path(config.phi)
    file = folder.parent / "report.json"
    if not (get_method(config.method).takes_phi and config.phi and folder.is_dir() and file.is_file()):
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"held_out", "task_loss_after_learning"} <= set(found):
        raise UserError(f"{file}: not what taalm.train_ta reported of the phi beside it; move it away")
    return found
