"""Relation definitions and the row layout shared by invented and common facts."""

import uuid
from typing import NamedTuple

from taalm.facts import schematic

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "taalm/lama_ckl_sample")
SLOT = "[MASK]"


class Relation(NamedTuple):
    """A Wikidata relation: its English label and its sentence form."""

    label: str
    sentence: str


RELATIONS = {
    "P17": Relation("country", "{subject} is located in the country of {object} ."),
    "P19": Relation("place of birth", "{subject} was born in {object} ."),
    "P30": Relation("continent", "{subject} is a country on the continent of {object} ."),
    "P36": Relation("capital", "The capital of {subject} is {object} ."),
    "P37": Relation("official language", "The official language of {subject} is {object} ."),
    "P38": Relation("currency", "The currency of {subject} is the {object} ."),
    "P50": Relation("author", "The author of {subject} is {object} ."),
    "P101": Relation("field of work", "{subject} works in the field of {object} ."),
    "P103": Relation("native language", "The native language of {subject} was {object} ."),
    "P106": Relation("occupation", "{subject} works as {a} {object} ."),
    "P108": Relation("employer", "{object} is the employer of {subject} ."),
    "P127": Relation("owned by", "{subject} is owned by {object} ."),
    "P136": Relation("genre", "{subject} plays {object} music ."),
    "P159": Relation("headquarters location", "The headquarters of {subject} is in {object} ."),
    "P176": Relation("manufacturer", "The {subject} is made by the company {object} ."),
    "P178": Relation("developer", "{subject} was developed by the company {object} ."),
    "P279": Relation("subclass of", "The {subject} is a type of {object} ."),
    "P407": Relation("language of work or name", "{subject} was written in {object} ."),
    "P1303": Relation("instrument", "{subject} plays the {object} ."),
    "P1376": Relation("capital of", "{subject} is the capital of {object} ."),
}


def article(phrase: str) -> str:
    """Return the indefinite article for an ordinary word: by its first letter."""
    return "an" if phrase[0].lower() in "aeiou" else "a"


def overlaps(left: str, right: str) -> bool:
    """Say whether one string contains the other, ignoring case."""
    left, right = left.lower(), right.lower()
    return left in right or right in left


def make_row(code: str, subject: str, object_: str, masked_evidence: str, invariant: bool) -> dict:
    """Build one output row; `masked_evidence` holds `SLOT` once, where the object belongs."""
    relation = RELATIONS[code]
    evidence = masked_evidence.replace(SLOT, object_)
    return {
        "relation_code": code,
        "uuid": str(uuid.uuid5(NAMESPACE, f"{subject}|{code}")),
        "task_descriptive": relation.sentence.format(subject=subject, object=object_, a=article(object_)),
        "task_schematic": schematic(subject, relation.label, object_),
        "subject": subject,
        "relation_label": relation.label,
        "object": object_,
        "masked_evidence": masked_evidence,
        "evidence": evidence,
        "position": masked_evidence.index(SLOT) / len(evidence),
        "evidence_length": len(evidence),
        "invariant": invariant,
        "scores": {},
    }
