"""A stand-in for TemporalWiki's DIFFSETs where those are absent: WikiText with sentences that state facts.

`python -m taalm.benchmarks.temporal_wiki_stand_in --data DIR` reads DIR/TemporalWiki/eval (the real probes),
DIR/wikitext-2/test.txt (paragraphs) and DIR/wikidata/templates.csv (a sentence per relation), and writes the layout of
the real data, train/diffset_<diffset>_filtered.jsonl ({text, object_span}) and eval/<period>_{changed,unchanged}.jsonl,
and LAMA-ckl rows for Train-Attention (ta_train, tune_to_learn, to_learn). Facts are stated in varied words, never in
the probes' schematic form. No subject of an evaluated probe is among the Train-Attention rows.
"""

import hashlib
import json
import os
import random
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse.typing import PositiveInt

from taalm.benchmarks.templates import Template, read_templates
from taalm.benchmarks.temporal_wiki import PERIODS, SETS, Triple, read_triples
from taalm.checkpoint import write_jsonl, write_text
from taalm.config import ROOT, parse, run_entry
from taalm.errors import UserError
from taalm.facts import MASK
from taalm.review_text import read_texts

MARK = "stand_in.json"
FRAMES = (
    "The {relation} of {subject} is {object}.",
    "As for {subject}, the {relation} is now {object}.",
    "{object} is the {relation} of {subject}.",
    "According to the latest edition, {subject} has {object} as {relation}.",
    "When asked about the {relation} of {subject}, most sources name {object}.",
    "{subject}, whose {relation} is {object}, was in the news this month.",
)
HELD = {"tune_to_learn": 60, "to_learn": 100}  # Train-Attention rows set apart; the rest is ta_train


@dataclass
class StandInConfig:
    """Build the stand-in stream."""

    data: str = ""
    """Folder with TemporalWiki/eval, wikitext-2 and wikidata."""
    out: str = ""
    """Where the files go; default a folder of data/TemporalWiki_stand_in of the project."""
    documents: PositiveInt = 150
    """Documents, and changed probes, of each period, at most; a third of a file's facts is left to Train-Attention."""
    unchanged: PositiveInt = 150
    """Unchanged probes of each period."""
    seed: int = 42
    """Seed of the choice of facts, paragraphs and words."""


def default_folder() -> Path:
    return ROOT / "data" / "TemporalWiki_stand_in"


def sentences(triple: Triple, templates: dict[str, Template]) -> list[str]:
    """Every way of stating the fact: its relation's template, if there is one, and the frames."""
    own = templates.get(triple.relation)
    stated = [own.fill(triple.subject, triple.object)] if own else []
    return stated + [frame.format(**asdict(triple)) for frame in FRAMES]


def plain(paragraph: str) -> str:
    """WikiText's spaced tokens as ordinary text."""
    text = re.sub(r" @(.)@ ", r"\1", paragraph.replace("<unk>", "one"))
    return re.sub(r" ([.,;:!?)'])", r"\1", text).replace("( ", "(").strip()


def document(stated: str, triple: Triple, paragraph: str, rng: random.Random) -> tuple[str, tuple[int, int]]:
    """Two or three sentences of the paragraph with `stated` somewhere among them, and where the object stands."""
    around = [part for part in re.split(r"(?<=[.!?]) ", plain(paragraph)) if part][: rng.choice((2, 3))]
    place = rng.randint(0, len(around))
    before = "".join(f"{part} " for part in around[:place])
    find = stated.rindex if stated.startswith(triple.subject) else stated.index
    start = len(before) + find(triple.object)
    return before + " ".join([stated, *around[place:]]), (start, start + len(triple.object))


def usable(triples: Iterable[Triple]) -> list[Triple]:
    """Facts whose subject and object can be told apart in a text, one per subject."""
    seen: set[str] = set()
    kept = []
    for triple in triples:
        if triple.subject not in seen and triple.object not in triple.subject and triple.subject not in triple.object:
            seen.add(triple.subject)
            kept.append(triple)
    return kept


def fact_row(triple: Triple, stated: str, asked: str, text: str, span: tuple[int, int]) -> dict:
    """A row of LAMA-ckl's schema that train_ta reads."""
    return {
        "relation_code": triple.relation,
        "uuid": hashlib.sha256(f"{triple}{stated}".encode()).hexdigest()[:16],
        "task_descriptive": asked,
        "task_schematic": triple.probe(),
        "subject": triple.subject,
        "relation_label": triple.relation,
        "object": triple.object,
        "masked_evidence": text[: span[0]] + MASK + text[span[1] :],
        "evidence": text,
    }


def write_facts(rows: Sequence[dict], out: Path) -> None:
    """Write Train-Attention's rows: some to watch phi on, some to judge it on, the rest to train on (last)."""
    start = 0
    for name, count in HELD.items():
        taken = min(count, len(rows) // 4)
        write_jsonl(out / f"{name}.jsonl", rows[start : start + taken])
        start += taken
    write_jsonl(out / "ta_train.jsonl", rows[start:])


def source_digest(data: Path) -> str:
    """A short hash of the probes; a stand-in belongs to the probes that it was made from."""
    digest = hashlib.sha256()
    for file in sorted((data / "TemporalWiki" / "eval").glob("*.jsonl")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def build(config: StandInConfig) -> Path:
    """Make all files unless they are there; returns their folder. Raises UserError when a source is missing."""
    data = Path(config.data)
    digest = source_digest(data)
    out = Path(config.out) if config.out else default_folder() / digest
    described = {
        "probes": digest,
        "documents": config.documents,
        "unchanged": config.unchanged,
        "seed": config.seed,
    }
    if (out / MARK).is_file() and json.loads((out / MARK).read_text()) == described:
        return out
    probes = {
        (period, name): usable(read_triples(data / "TemporalWiki" / "eval" / f"{period}_{name}.jsonl"))
        for period in PERIODS
        for name in SETS
    }
    templates = read_templates(data / "wikidata" / "templates.csv")
    paragraphs = read_texts(data / "wikitext-2" / "test.txt")
    rng = random.Random(config.seed)
    evaluated: set[str] = set()
    for period, diffset in PERIODS.items():
        chosen = {}
        for name, count in zip(SETS, (config.documents, config.unchanged), strict=True):
            rng.shuffle(probes[period, name])
            known = probes[period, name]
            chosen[name] = known[: min(count, len(known) * 2 // 3)]  # the others are for Train-Attention
            evaluated |= {triple.subject for triple in chosen[name]}
            write_jsonl(out / "eval" / f"{period}_{name}.jsonl", [asdict(triple) for triple in chosen[name]])
        rows = []
        for triple in chosen["changed"]:
            text, span = document(rng.choice(sentences(triple, templates)), triple, rng.choice(paragraphs), rng)
            rows.append({"text": text, "object_span": span})
        write_jsonl(out / "train" / f"diffset_{diffset}_filtered.jsonl", rows)
    rest = usable(t for (_, name), triples in probes.items() if name == "changed" for t in triples)
    rest = [triple for triple in rest if triple.subject not in evaluated]
    rng.shuffle(rest)
    facts = []
    for triple in rest:
        asked, *others = sentences(triple, templates)
        stated = rng.choice(others)
        facts.append(fact_row(triple, stated, asked, *document(stated, triple, rng.choice(paragraphs), rng)))
    write_facts(facts, out)
    write_text(out / MARK, json.dumps(described) + "\n")
    return out


def stream_folder(given: str) -> Path:
    """The folder with train/ and eval/, the stand-in where there are no DIFFSETs. Raises UserError, how to get one."""
    named = given or os.environ.get("TAALM_DATA", "")
    folder = Path(named) if named else ROOT / "data" / "TemporalWiki"
    for place in (folder, folder / "TemporalWiki"):
        if (place / "train").is_dir() and (place / "eval").is_dir():
            return place
    if (folder / "TemporalWiki" / "eval").is_dir():
        print(f"no DIFFSETs in {folder}: a stand-in stream takes their place (docs/temporal_wiki.md)", file=sys.stderr)
        return build(StandInConfig(data=str(folder)))
    raise UserError(
        f"{folder}: no train/ and eval/ of TemporalWiki; `bash scripts/data/temporalwiki.sh` downloads it, "
        "preprocess/preprocess_temporalwiki_dataset.py filters it; or name a folder with --data or TAALM_DATA"
    )


def main(arguments: list[str]) -> None:
    config = parse(StandInConfig, None, arguments, "python -m taalm.benchmarks.temporal_wiki_stand_in")
    print(f"stand-in stream in {build(config)}")


if __name__ == "__main__":
    run_entry(main)
