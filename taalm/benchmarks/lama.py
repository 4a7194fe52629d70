"""LAMA's T-REx (Petroni et al. 2019): its relations and facts, and the facts that LAMA-ckl can be made of."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from taalm.benchmarks.relations import INVARIANT, VARIANT
from taalm.errors import UserError
from taalm.facts import MASK, Fact, fact_from_row, read_jsonl, schematic

RELATION_FIELDS = ("relation", "template", "label")
FACT_FIELDS = ("predicate_id", "sub_label", "obj_label")


def _row(where: str, row: object, fields: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(row, dict) or not set(fields) <= set(row):
        raise UserError(f"{where}: expected the fields {', '.join(fields)}")
    return row


def read_relations(lama: Path) -> dict[str, dict[str, str]]:
    """code -> {label, template}. Raises UserError where LAMA is not there, or a row lacks a field."""
    path = next(lama.rglob("relations.jsonl"), None)
    if path is None or not any(lama.rglob("TREx/*.jsonl")):
        raise UserError(f"{lama}: no relations.jsonl and TREx/*.jsonl; `bash scripts/data/lama.sh` downloads LAMA")
    return {row["relation"]: row for row in (_row(where, row, RELATION_FIELDS) for where, row in read_jsonl(path))}


def read_trex(lama: Path, *more: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("file:line", row) of every fact. Raises UserError for a row that lacks a field, one of `more` too."""
    for file in tqdm(sorted(lama.rglob("TREx/*.jsonl")), desc="T-REx", unit="file", disable=None):
        for where, row in read_jsonl(file):
            yield where, _row(where, row, (*FACT_FIELDS, *more))


class Candidates(NamedTuple):
    """Facts with their evidence, and why others were dropped."""

    facts: list[Fact]
    dropped: Counter


def longest_evidence(evidences: Iterable[dict]) -> str | None:
    """The longest masked sentence with one [MASK], or None."""
    texts = (evidence.get("masked_sentence") for evidence in evidences if isinstance(evidence, dict))
    whole = [text for text in texts if isinstance(text, str) and text.count(MASK) == 1]
    return max(whole, key=len, default=None)


def why_dropped(row: dict, masked: str | None, shortest: int) -> str | None:
    """Why a T-REx row is no candidate, or None where it is one."""
    if row["predicate_id"] not in VARIANT | INVARIANT:
        return "another relation"
    if masked is None:
        return "no evidence with one [MASK]"
    if len(masked.replace(MASK, row["obj_label"])) <= shortest:
        return "evidence too short"
    if row["sub_label"] not in masked:
        return "subject not in the evidence"
    return None


def candidates(lama: Path, shortest: int = 200) -> Candidates:
    """LAMA-ckl rows, without scores, of all facts of the variant and invariant relations.

    Raises UserError with file and line for a row that lacks a field.
    """
    relations, facts, dropped, seen = read_relations(lama), [], Counter(), set()
    for where, row in read_trex(lama, "uuid", "evidences"):
        masked = longest_evidence(row["evidences"])
        reason = why_dropped(row, masked, shortest) or ("fact seen before" if row["uuid"] in seen else None)
        if reason:
            dropped[reason] += 1
            continue
        seen.add(row["uuid"])
        facts.append(_fact(row, masked, relations, where))
    return Candidates(facts, dropped)


def _fact(row: dict, masked: str, relations: dict[str, dict[str, str]], where: str) -> Fact:
    code, subject, answer = row["predicate_id"], row["sub_label"], row["obj_label"]
    if code not in relations:
        raise UserError(f"{where}: relations.jsonl has no relation {code}")
    label, evidence = relations[code]["label"], masked.replace(MASK, answer)
    described = {
        "relation_code": code,
        "uuid": row["uuid"],
        "task_descriptive": relations[code]["template"].replace("[X]", subject).replace("[Y]", answer),
        "task_schematic": schematic(subject, label, answer),
        "subject": subject,
        "relation_label": label,
        "object": answer,
        "masked_evidence": masked,
        "evidence": evidence,
        "position": masked.index(MASK) / len(evidence),
        "evidence_length": len(evidence),
        "invariant": code in INVARIANT,
    }
    return fact_from_row(described, where)
