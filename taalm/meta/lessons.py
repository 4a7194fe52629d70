"""Encoded facts, handed out as lessons: documents with their probes."""

from collections.abc import Sequence
from typing import Any

import torch

from taalm.errors import UserError
from taalm.facts import Fact
from taalm.meta.problem import Lesson
from taalm.scoring import encode_probe
from taalm.text import Batch, Encoded, by_length, collate, encode, pad_token


class Lessons:
    """Encoded facts of one file, handed out as lessons."""

    def __init__(
        self, tokenizer: Any, facts: Sequence[Fact], form: str, max_length: int, device: torch.device,
        retained: Sequence[Encoded] = (), needs_unrelated: bool = False, ends: bool = False, seq2seq: bool = False,
    ):  # fmt: skip
        """`ends`: texts have EOS at their end (taalm.text.encode); `seq2seq`: an encoder reads up to the object."""

        def document(fact: Fact) -> Encoded:
            span = fact.object_span()
            source = fact.evidence[: span[0]].strip() if seq2seq else None
            return encode(tokenizer, fact.evidence, span, max_length or None, ends, source)

        self.facts, self.pad_id, self.device = list(facts), pad_token(tokenizer), device
        self.documents = [document(fact) for fact in self.facts]
        self.probes = [encode_probe(tokenizer, fact, form, ends, seq2seq) for fact in self.facts]
        self.lengths = [len(row) for row in self.documents]
        self.retained, self.needs_unrelated = list(retained), needs_unrelated

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self.pad_id).to(self.device)

    def lesson(self, indices: Sequence[int], number: int = 0) -> Lesson:
        """The facts `indices` as one lesson; `number` chooses their unrelated probes and retained rows, one each."""
        unrelated = retained = None
        if self.needs_unrelated:
            unrelated = self.collate([self.probes[self._unrelated(index, number)] for index in indices])
        if self.retained:
            retained = self.collate([self._retained(index, number) for index in indices])
        documents = self.collate([self.documents[index] for index in indices])
        return Lesson(documents, self.collate([self.probes[index] for index in indices]), unrelated, retained)

    def _retained(self, index: int, number: int) -> Encoded:
        """A retained row that is not the document of fact `index`."""
        own = self.documents[index].input_ids
        for offset in range(len(self.retained)):
            row = self.retained[(index + number + offset) % len(self.retained)]
            if row.input_ids[: len(own)] != own[: len(row)]:
                return row
        raise UserError("the retention term needs a text that is not the document; --retention_data has none")

    def _unrelated(self, index: int, number: int) -> int:
        """Another fact that shares neither subject nor object nor document with fact `index`."""
        fact = self.facts[index]
        for offset in range(1, len(self.facts)):
            other = (index + number + offset) % len(self.facts)
            candidate = self.facts[other]
            if {candidate.subject, candidate.object}.isdisjoint((fact.subject, fact.object)) and (
                candidate.evidence != fact.evidence
            ):
                return other
        raise UserError("the restriction term needs facts that share neither subject nor object; the file has none")

    def in_batches(self, batch_size: int) -> list[list[int]]:
        return by_length(self.lengths, batch_size)
