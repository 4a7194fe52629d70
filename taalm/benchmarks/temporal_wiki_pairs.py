"""Facts for Train-Attention on TemporalWiki, made from DIFFSET text that states a fact of LAMA (T-REx).

`python -m taalm.benchmarks.temporal_wiki_pairs --data DIR` reads the filtered DIFFSETs and the probes of DIR and LAMA's
triples, and writes LAMA-ckl rows: the paragraph with a sentence that names subject and object is the document, the
relation's template the descriptive task. No subject of a probe is among them. Where DIR has no DIFFSETs, the stand-in's
facts are taken.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from taalm.benchmarks.lama import read_relations, read_trex
from taalm.benchmarks.temporal_wiki import PERIODS, SETS, Triple, document_rows, read_triples
from taalm.benchmarks.temporal_wiki_stand_in import MARK, fact_row, stream_folder, write_facts
from taalm.checkpoint import write_text
from taalm.config import ROOT, parse, run_entry
from taalm.errors import UserError
from taalm.facts import Span

LONGEST_NAME = 6  # words
PAIRS = "train_ta"  # the folder of the files, in that of the stream


@dataclass
class PairsConfig:
    """Make facts for Train-Attention from TemporalWiki's DIFFSETs."""

    data: str = ""
    """Folder with TemporalWiki's train/ and eval/; default TAALM_DATA, else data/TemporalWiki of the project."""
    lama: str = ""
    """Folder with LAMA's TREx/*.jsonl and relations.jsonl; default data/LAMA of the project."""
    out: str = ""
    """Where the files go; default <data>/train_ta."""
    limit: PositiveInt = 2000
    """So many facts at most."""
    longest: PositiveInt = 1500
    """Longer paragraphs are left out (characters)."""


@dataclass(frozen=True)
class Known:
    """A triple of T-REx with its relation's code and template."""

    triple: Triple
    code: str
    template: str


def read_lama(folder: Path) -> dict[str, list[Known]]:
    """subject -> its facts. Raises UserError where LAMA is not there, or a row lacks a field."""
    relations, found = read_relations(folder), {}
    for where, row in read_trex(folder):
        code = row["predicate_id"]
        if code not in relations:
            raise UserError(f"{where}: relations.jsonl has no relation {code}")
        triple = Triple(row["sub_label"], relations[code]["label"], row["obj_label"])
        found.setdefault(triple.subject, []).append(Known(triple, code, relations[code]["template"]))
    return found


def whole_word(text: str, name: str) -> Span | None:
    """Where `name` first stands in the text with no letter or digit beside it."""
    start = text.find(name)
    while start >= 0:
        end = start + len(name)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            return start, end
        start = text.find(name, start + 1)
    return None


def names_in(text: str, names: Iterable[str]) -> Iterator[str]:
    """Those of `names` (a set or dictionary) that stand in the text as a run of whole words."""
    words = text.split()
    for start in range(len(words)):
        for length in range(1, LONGEST_NAME + 1):
            run = " ".join(words[start : start + length]).strip(".,;:!?()\"'")
            if run in names:
                yield run


def stated(text: str, known: dict[str, list[Known]]) -> tuple[Known, Span] | None:
    """The first fact whose subject and object one sentence names apart from each other, and where the object stands."""
    for sentence in re.finditer(r"\S.*?(?:[.!?](?= )|$)", text):
        for subject in names_in(sentence[0], known):
            for fact in known[subject]:
                span = whole_word(sentence[0].replace(subject, " " * len(subject)), fact.triple.object)
                if span and fact.triple.object not in subject and subject not in fact.triple.object:
                    return fact, (sentence.start() + span[0], sentence.start() + span[1])
    return None


def pairs(config: PairsConfig, data: Path) -> list[dict]:
    """LAMA-ckl rows from the DIFFSETs, one for a subject and for a document."""
    known = read_lama(Path(config.lama) if config.lama else ROOT / "data" / "LAMA")
    for period in PERIODS:
        for name in SETS:
            for triple in read_triples(data / "eval" / f"{period}_{name}.jsonl"):
                known.pop(triple.subject, None)
    rows: list[dict] = []
    seen: set[str] = set()
    for diffset in PERIODS.values():
        for _, row in tqdm(document_rows(data / "train" / f"diffset_{diffset}_filtered.jsonl"), desc=diffset):
            for paragraph in row["text"].splitlines():
                if len(paragraph) > config.longest or paragraph in seen:
                    continue
                found = stated(paragraph, known)
                if found is None:
                    continue
                fact, span = found
                asked = fact.template.replace("[X]", fact.triple.subject).replace("[Y]", fact.triple.object)
                rows.append(fact_row(fact.triple, paragraph, asked, paragraph, span) | {"relation_code": fact.code})
                if len(rows) == config.limit:
                    return rows
                seen.add(paragraph)
                del known[fact.triple.subject]
    return rows


def build(config: PairsConfig) -> Path:
    """Make the files unless they are there; returns their folder. Raises UserError where too few facts are found."""
    data = stream_folder(config.data)
    if (data / MARK).is_file():
        return data
    out = Path(config.out) if config.out else data / PAIRS
    made, described = out / "made_from.json", {"lama": config.lama, "limit": config.limit, "longest": config.longest}
    if made.is_file() and json.loads(made.read_text()) == described:
        return out
    rows = pairs(config, data)
    if len(rows) < 8:
        raise UserError(f"{data}: its DIFFSETs state {len(rows)} facts of LAMA; too few to train phi on")
    write_facts(rows, out)
    write_text(made, json.dumps(described) + "\n")
    return out


def main(arguments: list[str]) -> None:
    config = parse(PairsConfig, None, arguments, "python -m taalm.benchmarks.temporal_wiki_pairs")
    print(build(config))


if __name__ == "__main__":
    run_entry(main)
