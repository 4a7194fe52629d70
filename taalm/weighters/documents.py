"""Weights that belong to a document, whatever batch it comes in: computed once, kept by its token ids."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from taalm.text import Batch, Encoded

Key = tuple[tuple[int, ...], tuple[int, ...]]  # token ids, those of the source


def keys(batch: Batch) -> list[Key]:
    """The real token ids of every row, and of its source where an encoder reads one."""

    def real(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
        return [tuple(row[kept].tolist()) for row, kept in zip(ids, mask.bool(), strict=True)]

    texts = real(batch.input_ids, batch.attention_mask)
    if batch.source_ids is None:
        return [(text, ()) for text in texts]
    return list(zip(texts, real(batch.source_ids, batch.source_mask), strict=True))


def key(document: Encoded) -> Key:
    """The same of one document."""
    return document.input_ids, document.source


def place(batch: Batch, rows: Sequence[Tensor]) -> Tensor:
    """Values of real tokens, one tensor a row, at their places in the batch; (B, T), 0 on padding."""
    result = torch.zeros(batch.attention_mask.shape, dtype=rows[0].dtype, device=batch.attention_mask.device)
    result[batch.attention_mask.bool()] = torch.cat(list(rows)).to(result.device)
    return result


class PerDocument:
    """A weighter that asks `compute` (batch -> (B, T)) about a document once."""

    def __init__(self, compute: Callable[[Batch], Tensor]):
        self.compute = compute
        self.known: dict[Key, Tensor] = {}

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        rows = keys(batch)
        if not all(row in self.known for row in rows):
            found = self.compute(batch)
            for row, values, mask in zip(rows, found, batch.attention_mask.bool(), strict=True):
                self.known[row] = values[mask].clone()
        return place(batch, [self.known[row] for row in rows])


def fixed(documents: Sequence[Encoded], rows: Sequence[Tensor]) -> Callable[[Batch], Tensor]:
    """A weighter from the weights of every document's targets, (real tokens - 1,) each.

    Two facts can stand in one text: their weights may differ, so the marked span tells them apart.
    """
    known = {
        (key(document), document.answer): torch.cat([values.new_zeros(1), values])
        for document, values in zip(documents, rows, strict=True)
    }

    def weights(batch: Batch) -> Tensor:
        real = batch.attention_mask.bool()
        marked = [tuple(row[kept].tolist()) for row, kept in zip(batch.answer, real, strict=True)]
        return place(batch, [known[row] for row in zip(keys(batch), marked, strict=True)])

    return weights
