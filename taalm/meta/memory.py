"""Influences that phi may learn from again.

The influence q_t of a document's token (`taalm.meta.hypergradient`) depends on phi only through where theta' ends up,
and in the limit of small inner steps not at all. Computing it is most of an outer step, learning from it is cheap: so
each document's last influences are kept, and phi makes further updates on them. They are exact for the weights that
they were computed with, an approximation for later ones (docs/experiments.md compares).
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from taalm.text import Encoded


class Memory:
    """The last influences of every document seen: document index -> (real tokens - 1,)."""

    def __init__(self) -> None:
        self.influences: dict[int, Tensor] = {}

    def keep(self, indices: Sequence[int], documents: Sequence[Encoded], influence: Tensor) -> None:
        """Remember the rows of `influence` (B, T-1), right padding cut off."""
        for row, index in enumerate(indices):
            self.influences[index] = influence[row, : len(documents[index]) - 1].detach().cpu()

    def sample(self, count: int, seed: int) -> list[int]:
        """Indices of up to `count` remembered documents, the same for the same seed."""
        known = sorted(self.influences)
        return random.Random(seed).sample(known, min(count, len(known)))

    def collate(self, indices: Sequence[int], width: int) -> Tensor:
        """Their influences, (B, width), 0 where there is no token."""
        stacked = torch.zeros(len(indices), width)
        for row, index in enumerate(indices):
            values = self.influences[index]
            stacked[row, : len(values)] = values
        return stacked

    def state(self) -> dict[str, Tensor]:
        return {f"memory/{index}": values for index, values in self.influences.items()}

    def load(self, saved: dict[str, Tensor]) -> None:
        found = {name: value for name, value in saved.items() if name.startswith("memory/")}
        self.influences = {int(name.removeprefix("memory/")): value for name, value in found.items()}
