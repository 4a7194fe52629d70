"""Running out of memory, told in a sentence: which flags of the command ask for less."""

import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch

Less = dict[Any, str] | None  # what a flag is now -> the value that needs less; None: half of a number

SAME_NUMBERS: dict[str, Less] = {  # a run may change these as it goes on
    "adapt.token_budget": None,
    "inner.token_budget": None,
    "eval_batch_size": None,
    "model.gradient_checkpointing": {False: "true"},
    "theta.gradient_checkpointing": {False: "true"},
    "phi.gradient_checkpointing": {False: "true"},
}
OTHER_NUMBERS: dict[str, Less] = {
    "model.adapter": {"lora": "qlora"},
    "theta.adapter": {"lora": "qlora"},
    "phi.four_bit": {False: "true"},
    "inner.mode": {"joint": "independent"},
    "outer.batch_size": None,
    "train_batch_size": None,
    "adapt.max_length": None,
    "outer.max_length": None,
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


def _smaller(flags: Mapping[str, Less], config: Any) -> list[str]:
    """Those of the flags that the command has and that can ask for less than now."""
    found = []
    for flag, less in flags.items():
        now = reduce(lambda part, name: getattr(part, name, None), flag.split("."), config)
        if flag == "inner.token_budget" and now and config.inner.mode == "joint":
            continue  # one theta' for all documents: they go together
        if less is None:
            if now and now > 1:
                found.append(f"--{flag} {now // 2}")
        elif now in less:
            found.append(f"--{flag} {less[now]}")
    return found
