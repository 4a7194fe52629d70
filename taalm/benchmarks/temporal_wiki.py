"""TemporalWiki (Jang et al. 2022): three periods, their documents (DIFFSETs), their probes, the numbers reported."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taalm.errors import UserError
from taalm.facts import Span, read_jsonl, schematic
from taalm.text import Encoded, encode

PERIODS = {"0901-1001": "0910", "1001-1101": "1011", "1101-1201": "1112"}  # probes -> DIFFSET, in sequence
SETS = ("changed", "unchanged")
SHORTEST, LETTERS = 50, 0.3  # characters, share of ASCII letters


@dataclass(frozen=True)
class Triple:
    """One probe: a fact of Wikidata, asked in the schematic form."""

    subject: str
    relation: str
    object: str

    def probe(self) -> str:
        return schematic(self.subject, self.relation, self.object)

    def answer_span(self) -> Span:
        end = len(self.probe())
        return end - len(self.object), end

    def encoded(self, tokenizer: Any) -> Encoded:
        return encode(tokenizer, self.probe(), self.answer_span())


def read_triples(path: str | Path) -> list[Triple]:
    """The probes of a JSONL file of {subject, relation, object}. Raises UserError with file and line."""
    triples = []
    for where, row in read_jsonl(path):
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
        for name in ("subject", "relation", "object"):
            if not isinstance(row.get(name), str) or not row[name].strip():
                raise UserError(f"{where}: the field {name!r} must be text, found {row.get(name)!r}")
        triples.append(Triple(row["subject"], row["relation"], row["object"]))
    if not triples:
        raise UserError(f"{path}: holds no probes")
    return triples


def why_dropped(text: str) -> str | None:
    """Why the DIFFSET filter drops a text, or None where it is kept (three rules, in this order)."""
    if len(text) < SHORTEST:
        return "nan" if "nan" in text else "short"
    letters = sum(character.isascii() and character.isalpha() for character in text)
    return "letters" if letters < LETTERS * len(text) else None


def document_rows(path: str | Path) -> Iterator[tuple[str, dict]]:
    """("file:line", row) of a filtered DIFFSET, JSONL rows of {text}. Raises UserError with file and line."""
    empty = True
    for where, row in read_jsonl(path):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
            raise UserError(f"{where}: expected a JSON object with text in the field 'text'")
        empty = False
        yield where, row
    if empty:
        raise UserError(f"{path}: holds no documents")


def read_documents(path: str | Path) -> list[str]:
    """The texts of a filtered DIFFSET. Raises UserError as `document_rows`."""
    return [row["text"] for _, row in document_rows(path)]


def summary(history: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """Un, C and their average after the last epoch of a period."""
    last = history[max(history)]
    changed, unchanged = last["ppl_changed"], last["ppl_unchanged"]
    return {"unchanged": unchanged, "changed": changed, "average": (changed + unchanged) / 2}
