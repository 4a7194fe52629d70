"""Invented facts with short documents, split into files that share no subject and no document."""

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from preprocess import sample_documents_people, sample_documents_things
from preprocess import sample_words as words
from preprocess.relations import SLOT, article, make_row, overlaps

DOCUMENTS = sample_documents_people.DOCUMENTS | sample_documents_things.DOCUMENTS
CLOSERS = sample_documents_things.CLOSERS | {"person": sample_documents_people.CLOSERS}
SUBJECT_KINDS = {
    "P19": "person",
    "P106": "person",
    "P108": "person",
    "P101": "person",
    "P1303": "person",
    "P159": "company",
    "P127": "company",
    "P136": "band",
    "P407": "novel",
    "P17": "village",
}
PRONOUNS = {
    "woman": {"he": "she", "his": "her", "him": "her", "He": "She", "His": "Her"},
    "man": {"he": "he", "his": "his", "him": "him", "He": "He", "His": "His"},
}
PEOPLE, COMPANIES = 170, 80


class FileSpec(NamedTuple):
    """One output file: its relations, facts per relation and groups of document templates."""

    relations: tuple[str, ...]
    per_relation: int
    groups: tuple[str, str]


FILES = {
    "to_learn": FileSpec(tuple(SUBJECT_KINDS), 10, ("held_out", "shared")),
    "tune_to_learn": FileSpec(("P106", "P1303", "P159", "P17"), 10, ("held_out", "shared")),
    "ta_train": FileSpec(tuple(SUBJECT_KINDS), 16, ("train", "shared")),
}


class Subject(NamedTuple):
    """An invented subject; `short` is what later sentences call it."""

    name: str
    short: str
    pronouns: dict[str, str]


def _pairs(rng: random.Random, starts: list[str], ends: list[str], joint: str) -> list[str]:
    """All joined pairs of a start and an end, shuffled."""
    names = [start + joint + end for start, end in itertools.product(starts, ends)]
    rng.shuffle(names)
    return names


def _people(rng: random.Random, families: list[str]) -> Iterator[Subject]:
    """One person per family name, women and men in turn."""
    women, men = rng.sample(words.WOMEN, len(words.WOMEN)), rng.sample(words.MEN, len(words.MEN))
    for index, family in enumerate(families):
        sex, firsts = ("woman", women) if index % 2 == 0 else ("man", men)
        yield Subject(f"{firsts[index // 2 % len(firsts)]} {family}", family, PRONOUNS[sex])


def _things(names: list[str]) -> Iterator[Subject]:
    """Subjects that are not people and are always called by their whole name."""
    return (Subject(name, name, {}) for name in names)


def _fill(rng: random.Random, template: str, code: str, subject: Subject, object_: str, passers_by: list[str]) -> str:
    """Fill a template with the subject, the object (masked in its slot) and random distractors."""
    cities = rng.sample([city for city in words.CITIES if not overlaps(city, object_)], 3)
    firsts = rng.sample([name for name in words.WOMEN + words.MEN if name not in subject.name], 3)
    people = [f"{first} {family}" for first, family in zip(firsts, rng.sample(passers_by, 3), strict=True)]
    villages = rng.sample(_pairs(rng, words.VILLAGE_STARTS, words.VILLAGE_ENDS, ""), 2)
    other = rng.choice([word for word in words.OBJECTS[code] if not overlaps(word, object_)])
    return template.format(
        subject=subject.name,
        short=subject.short,
        slot=SLOT,
        object=object_,
        a=article(object_),
        other=other,
        an_other=article(other),
        city=cities[0],
        city2=cities[1],
        city3=cities[2],
        person=people[0],
        person2=people[1],
        person3=people[2],
        village=villages[0],
        village2=villages[1],
        year=rng.randint(1955, 1979),
        year2=rng.randint(1983, 2002),
        year3=rng.randint(2006, 2019),
        month=rng.choice(words.MONTHS),
        season=rng.choice(words.SEASONS),
        n=rng.randint(12, 48),
        few=rng.choice(words.SMALL_NUMBERS),
        **subject.pronouns,
    )


def _document(
    rng: random.Random, template: str, code: str, subject: Subject, object_: str, passers_by: list[str]
) -> str:
    """Fill a template and up to three closing sentences."""
    closers = rng.sample(CLOSERS[SUBJECT_KINDS[code]], rng.randint(0, 3))
    return " ".join(_fill(rng, text, code, subject, object_, passers_by) for text in [template, *closers])


def invented_rows(seed: int) -> dict[str, list[dict]]:
    """Return the rows of each file of invented facts; equal seeds give equal rows."""
    rng = random.Random(seed)
    families = _pairs(rng, words.FAMILY_STARTS, words.FAMILY_ENDS, "")
    passers_by = families[PEOPLE + COMPANIES :]
    company_ends = itertools.cycle(rng.sample(words.COMPANY_ENDS, len(words.COMPANY_ENDS)))
    companies = [f"{name} {next(company_ends)}" for name in families[PEOPLE : PEOPLE + COMPANIES]]
    novel_ends = rng.sample(_pairs(rng, words.VILLAGE_STARTS, words.VILLAGE_ENDS, ""), 60)
    novel_starts = itertools.cycle(words.NOVEL_STARTS)
    subjects = {
        "person": _people(rng, families[:PEOPLE]),
        "company": _things(companies),
        "band": _things(_pairs(rng, words.BAND_STARTS, words.BAND_ENDS, " ")),
        "novel": _things([f"The {next(novel_starts)} of {end}" for end in novel_ends]),
        "village": _things(_pairs(rng, words.PLACE_STARTS, words.PLACE_ENDS, "")),
    }
    objects = {code: itertools.cycle(rng.sample(names, len(names))) for code, names in words.OBJECTS.items()}
    files = {}
    for file, spec in FILES.items():
        rows = []
        for code in spec.relations:
            templates = [text for group in spec.groups for text in DOCUMENTS[code][group]]
            for index in range(spec.per_relation):
                subject, object_ = next(subjects[SUBJECT_KINDS[code]]), next(objects[code])
                template = templates[index % len(templates)]
                masked = _document(rng, template, code, subject, object_, passers_by)
                rows.append(make_row(code, subject.name, object_, masked, invariant=False))
        rng.shuffle(rows)
        files[file] = rows
    return files
