"""taalm: continual knowledge learning with meta-learned token weights (Train-Attention, NeurIPS 2024)."""

import logging
import warnings

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at import about optional kernels
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # transformers, about PEFT

import taalm.models.kadapter  # noqa: E402, F401  registers K-Adapter with PEFT
