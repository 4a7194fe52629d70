"""taalm: continual knowledge learning with meta-learned token weights (Train-Attention, NeurIPS 2024)."""

import logging
import warnings
from importlib import import_module
from typing import Any

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at import about optional kernels
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # transformers, about PEFT

_EXPORTS = {
    "TrainAttention": "taalm.models.train_attention",
    "TokenWeighted": "taalm.hf",
    "TokenWeightedTrainer": "taalm.hf",
    "TokenWeightCollator": "taalm.hf",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    """The public names, loaded when they are first asked for."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'taalm' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
