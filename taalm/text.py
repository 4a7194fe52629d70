"""Tokenise documents and probes, find answer spans by character offsets, collate, batch by length."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from taalm.errors import UserError

Span = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """One text: its token ids with BOS first, and which tokens belong to the marked span (the answer).

    For an encoder-decoder the text is what the decoder says, and `source` what the encoder reads.
    """

    input_ids: tuple[int, ...]
    answer: tuple[bool, ...]
    truncated: bool = False
    source: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.input_ids)

    def up_to_answer(self) -> "Encoded":
        """Without what follows the answer: a causal model's logits there do not depend on it."""
        end = max((place + 1 for place, answers in enumerate(self.answer) if answers), default=len(self))
        return replace(self, input_ids=self.input_ids[:end], answer=self.answer[:end])


@dataclass(frozen=True)
class Batch:
    """A padded batch, all (B, T): `answer` is True on the tokens of the marked span.

    `states` (B, T, H), where present, is what enters theta's first trained layer (taalm.models.split). `source_ids` and
    `source_mask` (B, S) are what the encoder of an encoder-decoder reads; the rest is then its decoder's.
    """

    input_ids: Tensor
    attention_mask: Tensor
    answer: Tensor
    states: Tensor | None = None
    source_ids: Tensor | None = None
    source_mask: Tensor | None = None

    def inputs(self) -> dict[str, Tensor]:
        """What the model is called with; positions count real tokens, on whichever side padding lies."""
        if self.source_ids is not None:
            return {
                "input_ids": self.source_ids,
                "attention_mask": self.source_mask,
                "decoder_input_ids": self.input_ids,
                "decoder_attention_mask": self.attention_mask,
            }
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": position_ids(self.attention_mask),
        }

    def to(self, device: torch.device | str) -> "Batch":
        return self._each(lambda part: part.to(device))

    def rows(self, indices: Sequence[int]) -> "Batch":
        """Some documents as a batch of their own, padding cut off that none of them needs."""
        chosen = list(indices)
        real = self.attention_mask[chosen].any(0)
        found = replace(self, source_ids=None, source_mask=None)._each(lambda part: part[chosen][:, real])
        if self.source_ids is None or self.source_mask is None:
            return found
        read = self.source_mask[chosen].any(0)
        source_ids, source_mask = (part[chosen][:, read] for part in (self.source_ids, self.source_mask))
        return replace(found, source_ids=source_ids, source_mask=source_mask)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        parts = (getattr(self, field.name) for field in fields(self))
        return Batch(*(None if part is None else change(part) for part in parts))


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions of real tokens from 0, (B, T) -> (B, T)."""
    return (attention_mask.cumsum(1) - 1).clamp_min(0)


def start_token(tokenizer: Any) -> int:
    """The id that every text starts with: BOS, or EOS where the tokenizer has no BOS."""
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise UserError(f"the tokenizer {tokenizer.name_or_path!r} has neither a BOS nor an EOS token")
    return start


def encode(
    tokenizer: Any, text: str, span: Span | None = None, max_length: int | None = None, ends: bool = False,
    source: str | None = None, source_length: int | None = None,
) -> Encoded:  # fmt: skip
    """Tokenise `text` with BOS and mark the tokens that overlap the characters `span`.

    Needs a fast tokenizer (character offsets). With `max_length` the text is cut to that many tokens, BOS included. A
    text that `ends` has EOS at its end, and what follows the span is part of the answer, which is not said before it is
    over. `source` is what an encoder reads, cut to `source_length` tokens.
    """
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer {tokenizer.name_or_path!r} is not a fast one; answer spans need its offsets")
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = (start_token(tokenizer), *plain["input_ids"])
    if span is None:
        answer = (False,) * len(ids)
    else:
        last = len(text) if ends else span[1]
        answer = (False, *(start < last and span[0] < end for start, end in plain["offset_mapping"]))
        if not any(answer):
            raise UserError(f"no token of {text!r} covers the characters {span[0]} to {span[1]}")
    if ends:
        ids, answer = (*ids, tokenizer.eos_token_id), (*answer, span is not None)
    truncated = max_length is not None and len(ids) > max_length
    if truncated:
        ids, answer = ids[:max_length], answer[:max_length]
    read = tokenizer(source, verbose=False)["input_ids"][:source_length] if source is not None else ()
    return Encoded(ids, answer, truncated, tuple(read))


def offsets(tokenizer: Any, text: str, row: Encoded) -> list[Span]:
    """The characters in `text` of the tokens that `row` has of it: none for BOS, EOS and what was cut off."""
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [tuple(place) for place in plain["offset_mapping"][: len(row) - 1]]


def check_length(length: int, limit: int | None, where: str) -> None:
    """Raises UserError when a text of `length` tokens is longer than the model reads (`limit`, None: no limit)."""
    if limit is not None and length > limit:
        raise UserError(
            f"{where}: the document has {length} tokens, the model reads {limit}; "
            f"shorten it or set max_length {limit} to cut documents"
        )


def collate(rows: Sequence[Encoded], pad_id: int, side: str = "right") -> Batch:
    """Pad to the longest row; `side` is where the padding goes and changes no number that is computed."""
    width = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), width), pad_id)
    attention_mask = torch.zeros(len(rows), width, dtype=torch.long)
    answer = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        input_ids[index, place] = torch.tensor(row.input_ids)
        attention_mask[index, place] = 1
        answer[index, place] = torch.tensor(row.answer)
    batch = Batch(input_ids, attention_mask, answer)
    if not rows[0].source:
        return batch
    read = collate([Encoded(row.source, (False,) * len(row.source)) for row in rows], pad_id)
    return replace(batch, source_ids=read.input_ids, source_mask=read.attention_mask)


def pad_token(tokenizer: Any) -> int:
    """The id to pad with; masked everywhere, so any id does where the tokenizer names none."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else start_token(tokenizer)


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of similar length, longest first (memory trouble shows at once). For evaluation."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def by_tokens(indices: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut one batch into parts of similar length of at most `budget` padded tokens (a longer text stands alone)."""
    parts: list[list[int]] = []
    for index in sorted(indices, key=lambda index: lengths[index]):
        if parts and (len(parts[-1]) + 1) * lengths[index] <= budget:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def shuffled_buckets(lengths: Sequence[int], batch_size: int, seed: int, pool: int = 4) -> list[list[int]]:
    """One epoch of shuffled batches of similar length; every index occurs once, the last short batch is kept.

    Indices are shuffled, cut into pools of `pool` batches, sorted by length within a pool, and the batches
    shuffled again. The same seed gives the same batches.
    """
    rng = random.Random(seed)
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * pool):
        near = sorted(order[start : start + batch_size * pool], key=lambda index: lengths[index])
        batches += [near[cut : cut + batch_size] for cut in range(0, len(near), batch_size)]
    rng.shuffle(batches)
    return batches


def describe_truncation(rows: Iterable[Encoded], max_length: int | None) -> str | None:
    """A sentence on how many texts were cut, or None."""
    cut = sum(row.truncated for row in rows)
    return f"{cut} documents were cut to {max_length} tokens" if cut else None
