"""What weighters are made from; each takes what it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from taalm.text import Encoded


@dataclass(frozen=True)
class Material:
    """`base_losses` and `reference_losses` give l_t of every document, (real tokens - 1,) each, under theta_0 and under
    a model that was fine-tuned on TA-train documents; they run a model, so they are called only where needed.
    """

    phi: nn.Module | None = None
    tokenizer: Any = None
    documents: Sequence[Encoded] = ()
    texts: Sequence[str] = ()
    subjects: Sequence[str] = ()
    base_losses: Callable[[], list[Tensor]] | None = None
    reference_losses: Callable[[], list[Tensor]] | None = None
    keep: float = 0.6
    weights: str = ""
