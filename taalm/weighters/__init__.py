"""Weighters: (batch) -> a weight for every token. A new one is a small file and a line in WEIGHTERS."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from taalm.errors import UserError
from taalm.text import Batch
from taalm.weighters.given import given
from taalm.weighters.material import Material
from taalm.weighters.ner import ner
from taalm.weighters.oracle import oracle, oracle_bidirectional
from taalm.weighters.selective import rho, rho_theta0, sstoken_rel
from taalm.weighters.surprisal import surprisal
from taalm.weighters.tfidf import tfidf
from taalm.weighters.train_attention import train_attention
from taalm.weighters.uniform import uniform


class Weighter(Protocol):
    """Non-negative weights (B, T) of a batch of documents; only their ratios within a document matter."""

    def __call__(self, batch: Batch) -> Tensor: ...


@runtime_checkable
class Selector(Protocol):
    """Weights (B, T) that depend on theta's present losses (B, T-1) and on all documents of the update, `batch`."""

    def select(self, batch: Batch, losses: Tensor) -> Tensor: ...


WEIGHTERS: dict[str, Callable[[Material], Weighter | Selector]] = {
    "uniform": uniform,
    "oracle": oracle,
    "oracle_bidirectional": oracle_bidirectional,
    "train_attention": train_attention,
    "rho": rho,
    "rho_theta0": rho_theta0,
    "sstoken_rel": sstoken_rel,
    "surprisal": surprisal,
    "ner": ner,
    "tfidf": tfidf,
    "given": given,
}


def get_weighter(name: str, material: Material | None = None) -> Weighter | Selector:
    """The weighter of that name. Raises UserError, listing the names, for an unknown one."""
    if name not in WEIGHTERS:
        raise UserError(f"no weighter {name!r}; the weighters are {', '.join(sorted(WEIGHTERS))}")
    return WEIGHTERS[name](material or Material())
