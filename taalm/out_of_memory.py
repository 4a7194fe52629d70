"""Running out of memory, told in a sentence: which flags of the command ask for less."""

import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch

SAME_NUMBERS = {  # flag -> what needs less; a run may change these as it goes on
    "adapt.token_budget": "half",
    "inner.token_budget": "half",
    "eval_batch_size": "half",
    "model.gradient_checkpointing": "true",
    "theta.gradient_checkpointing": "true",
    "phi.gradient_checkpointing": "true",
}
OTHER_NUMBERS = {
    "model.adapter": "qlora",
    "theta.adapter": "qlora",
    "phi.four_bit": "true",
    "outer.batch_size": "half",
    "train_batch_size": "half",
    "adapt.max_length": "half",
    "outer.max_length": "half",
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU, torch's CPU allocator or Python had no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, RuntimeError) and any(part in said for part in words)


def proposal(error: BaseException, config: Any) -> str:
    """A sentence: what could not be had, and the flags of the command configured by `config` that ask for less."""
    wanted = re.search(r"tried to allocate ([\d.]+ \w+)", str(error), re.IGNORECASE)
    told = f"out of memory{f' ({wanted[1]} were asked for at once)' if wanted else ''}; what was saved is whole"
    same, other = _smaller(SAME_NUMBERS, config), _smaller(OTHER_NUMBERS, config)
    if same:
        told += f"; the same command goes on, to the same numbers, with {' '.join(same)}"
    if other:
        told += f"; another run, in another folder, needs less with {' or '.join(other)}"
    return told if same or other else f"{told}; free memory, or take a machine with more of it"


def _smaller(flags: Mapping[str, str], config: Any) -> list[str]:
    """Those of the flags that the command has and that can ask for less than now."""
    found = []
    for flag, less in flags.items():
        now = reduce(lambda part, name: getattr(part, name, None), flag.split("."), config)
        if less == "half":
            if now and now > 1:
                found.append(f"--{flag} {now // 2}")
        elif (less == "true" and now is False) or (less == "qlora" and now == "lora"):
            found.append(f"--{flag} {less}")
    return found
