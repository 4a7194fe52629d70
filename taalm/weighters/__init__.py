"""Weighters: (batch) -> a weight for every token. A new one is a small file and a line in WEIGHTERS."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from taalm.errors import UserError
from taalm.text import Batch
from taalm.weighters.oracle import oracle
from taalm.weighters.train_attention import train_attention
from taalm.weighters.uniform import uniform


class Weighter(Protocol):
    """Non-negative weights (B, T) of a batch of documents; only their ratios within a document matter."""

    def __call__(self, batch: Batch) -> Tensor: ...


# name -> function of (phi or None) that makes the weighter; `finetune` and `targeted` are the scripts' names
WEIGHTERS: dict[str, Callable[..., Weighter]] = {
    "uniform": uniform,
    "oracle": oracle,
    "train_attention": train_attention,
}


def get_weighter(name: str, phi: object | None = None) -> Weighter:
    """The weighter of that name. Raises UserError, listing the names, for an unknown one."""
    if name not in WEIGHTERS:
        raise UserError(f"no weighter {name!r}; the weighters are {', '.join(sorted(WEIGHTERS))}")
    return WEIGHTERS[name](phi)
