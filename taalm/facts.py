"""The Fact record of LAMA-ckl, its reader and its validator."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taalm.errors import UserError

FORMS = ("descriptive", "schematic")
MASK = "[MASK]"
TEXT_FIELDS = (
    "relation_code",
    "uuid",
    "task_descriptive",
    "task_schematic",
    "subject",
    "relation_label",
    "object",
    "masked_evidence",
    "evidence",
)

Span = tuple[int, int]  # characters [start, end)


def schematic(subject: str, relation: str, object_: str) -> str:
    """The schematic probe of a fact (TAALM, section 4.1); it ends with the object."""
    return f"Guess the object. \n  subject is {subject} , relation is {relation} , object is {object_}"


@dataclass(frozen=True)
class Fact:
    """One row of LAMA-ckl (TAALM, section 4.1): a fact, the document that states it, and two probes for it."""

    relation_code: str
    uuid: str
    task_descriptive: str
    task_schematic: str
    subject: str
    relation_label: str
    object: str
    masked_evidence: str
    evidence: str
    position: float = 0.0
    evidence_length: int = 0
    invariant: bool = False
    scores: dict = field(default_factory=dict)
    where: str = field(default="", compare=False)  # "file:line", for messages

    def content(self) -> tuple[str, ...]:
        """What the row says, wherever it stands."""
        return tuple(getattr(self, name) for name in TEXT_FIELDS)

    def probe(self, form: str) -> str:
        """The sentence that states the fact, `descriptive` or `schematic`."""
        return self.task_descriptive if form == "descriptive" else self.task_schematic

    def answer_span(self, form: str) -> Span:
        """Characters of the object in the probe: the end of the schematic form, else outside the subject."""
        probe = self.probe(form)
        if form == "schematic" and probe.endswith(self.object):
            return len(probe) - len(self.object), len(probe)
        outside = [span for span in occurrences(probe, self.object) if _apart_from_subject(probe, self.subject, span)]
        if not outside:
            raise UserError(f"{self.where}: the object {self.object!r} does not occur in task_{form} {probe!r}")
        return outside[-1]

    def object_span(self) -> Span:
        """Characters of the object in the document, at the place of [MASK]."""
        start = self.masked_evidence.index(MASK)
        return start, start + len(self.object)

    def object_first(self) -> bool:
        """Whether the document names the object before it names the subject (every probe asks subject -> object)."""
        subject = self.evidence.find(self.subject)
        return subject < 0 or self.object_span()[0] < subject

    def to_row(self) -> dict:
        row = asdict(self)
        del row["where"]
        return row


def occurrences(text: str, part: str) -> list[Span]:
    """All places of `part` in `text`, overlapping ones included."""
    found, start = [], text.find(part)
    while start >= 0:
        found.append((start, start + len(part)))
        start = text.find(part, start + 1)
    return found


def _apart_from_subject(probe: str, subject: str, span: Span) -> bool:
    """Whether the probe, outside `span`, still names the subject (or never does)."""
    named = occurrences(probe, subject)
    return not named or any(end <= span[0] or span[1] <= start for start, end in named)


def fact_from_row(row: object, where: str) -> Fact:
    """Check one row and make a Fact of it; `where` names the row in messages.

    Raises UserError: a field is missing or not text, the document is empty, [MASK] is not where the object is,
    or a probe does not contain the object.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    row = {name: value for name, value in row.items() if value is not None or name in TEXT_FIELDS}  # of a table's cells
    for name in TEXT_FIELDS:
        if name not in row:
            raise UserError(f"{where}: the field {name!r} is missing")
        if not isinstance(row[name], str):
            raise UserError(f"{where}: the field {name!r} must be text, found {row[name]!r}")
        if not row[name].strip():
            what = "the document (field 'evidence') is empty" if name == "evidence" else f"the field {name!r} is empty"
            raise UserError(f"{where}: {what}")
    scores = row.get("scores", {})
    if not isinstance(scores, dict) or not all(isinstance(by_model, dict) for by_model in scores.values()):
        raise UserError(f"{where}: the field 'scores' must be a table form -> model -> accuracy, found {scores!r}")
    if row["masked_evidence"].count(MASK) != 1:
        raise UserError(f"{where}: masked_evidence must contain {MASK} exactly once")
    if row["masked_evidence"].replace(MASK, row["object"]) != row["evidence"]:
        raise UserError(f"{where}: masked_evidence with {MASK} replaced by the object is not the evidence")
    known = {name: row[name] for name in Fact.__dataclass_fields__ if name in row and name != "where"}
    fact = Fact(**known, where=where)
    for form in FORMS:
        fact.answer_span(form)
    return fact


def read_jsonl(path: str | Path) -> Iterable[tuple[str, object]]:
    """Yield ("file:line", value) for every non-blank line. Raises UserError for a missing file or a broken line."""
    path = Path(path)
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                try:
                    text = line.decode("utf-8")
                    if text.strip():
                        yield where, json.loads(text)
                except UnicodeDecodeError as error:
                    raise UserError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start})") from None
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{where}: not valid JSON ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror or error})") from None


def read_facts(path: str | Path) -> list[Fact]:
    """Read a JSONL file of LAMA-ckl rows. Raises UserError with file and line for anything that is wrong."""
    return _facts(read_jsonl(path), str(path))


def facts_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Fact]:
    """The same of rows in memory (dicts, a datasets.Dataset). Raises UserError, naming the row."""
    return _facts(numbered(rows), "rows")


def numbered(rows: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """("rows[0]", row), ... as `read_jsonl` has lines."""
    return ((f"rows[{index}]", row) for index, row in enumerate(rows))


def objects_by_relation(facts: Iterable[Fact]) -> dict[str, Counter[str]]:
    """relation -> how often its facts have which object."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for fact in facts:
        found[fact.relation_code][fact.object] += 1
    return found


def _facts(rows: Iterable[tuple[str, object]], what: str) -> list[Fact]:
    facts, seen = [], {}
    for where, row in rows:
        fact = fact_from_row(row, where)
        if fact.uuid in seen:
            raise UserError(f"{where}: uuid {fact.uuid!r} occurs already at {seen[fact.uuid]}")
        seen[fact.uuid] = where
        facts.append(fact)
    if not facts:
        raise UserError(f"{what}: holds no facts")
    return facts
