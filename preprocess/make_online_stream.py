"""Make a stream of dated facts for the online benchmark.

Run from anywhere:
    python preprocess/make_online_stream.py --probes DIR --templates FILE --out DIR
    python preprocess/make_online_stream.py --triples FILE --version day --templates FILE --out DIR
    python preprocess/make_online_stream.py --sample DIR
The first takes TemporalWiki's changed probes, month by month; the second any dated triples of Wikidata (JSONL rows of
{subject, relation, object, date}, dates by day); the third makes the committed samples by day, month and quarter. All
write datesorted_train.jsonl ({corpus, date, id, relation}) and datesorted_test.jsonl ({query, answer, date, id,
relation}), the first and the last also ta/ beside their folder, with facts for Train-Attention in LAMA-ckl's schema:
others of the same make (TemporalWiki's unchanged ones), about subjects that the stream never names.

A fact is a sentence with `_X_` in the object's place; the objects of one subject, relation and date are one fact with
several names. A relation without a template is stated as "The <relation> of <subject> is <object> .".
"""

import argparse
import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

REPO_ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO_ROOT))

from preprocess.sample_facts import invented_rows  # noqa: E402
from preprocess.sample_words import OBJECTS  # noqa: E402
from taalm.benchmarks.online_forms import cut  # noqa: E402
from taalm.benchmarks.online_wiki import BLANK, date_key, date_kind, plain_date  # noqa: E402
from taalm.benchmarks.templates import Template, read_templates  # noqa: E402
from taalm.benchmarks.temporal_wiki import PERIODS, Triple, read_triples  # noqa: E402
from taalm.benchmarks.temporal_wiki_stand_in import fact_row, usable, write_facts  # noqa: E402
from taalm.checkpoint import write_jsonl  # noqa: E402
from taalm.errors import UserError  # noqa: E402
from taalm.facts import read_jsonl  # noqa: E402

MONTHS = dict(zip(PERIODS, ("2021-9", "2021-10", "2021-11"), strict=True))  # what changed from 0901 to 1001: September
GENERIC = "The {relation} of <subject> is <object>."
TA_SAMPLE = 80
SAMPLE = {  # kind -> date -> facts; dates cross a year, one has a single fact
    "day": {"2023-12-30": 6, "2023-12-31": 6, "2024-1-1": 1, "2024-1-2": 6, "2024-1-10": 6},
    "month": {"2023-9": 8, "2023-10": 8, "2023-12": 1, "2024-2": 8},
    "quarter": {"2023-Q3": 10, "2023-Q4": 10, "2024-Q1": 10},
}


class Dated(NamedTuple):
    """A fact that became true at a date; `query` is its sentence with `_X_` for the object."""

    subject: str
    relation: str
    object: str
    date: str
    query: str


def as_query(template: Template, subject: str) -> str:
    """The template as a sentence about the subject, `_X_` in the object's place and a space before the full stop."""
    return template.fill(subject, BLANK).strip().removesuffix(".").rstrip() + " ."


def stream_rows(facts: Iterable[Dated]) -> tuple[list[dict], list[dict]]:
    """Rows of the train and the test file, by date and in the given order within one; duplicates count once."""
    together: dict[tuple[str, str, str], list[Dated]] = {}
    for fact in facts:
        known = together.setdefault((fact.date, fact.subject, fact.relation), [])
        if fact.object not in [other.object for other in known]:
            known.append(fact)
    train, test = [], []
    for date, subject, relation in sorted(together, key=lambda key: date_key(key[0])):
        found = together[date, subject, relation]
        name = hashlib.sha256(subject.encode()).hexdigest()[:10]
        common = {"date": date, "id": f"{name}_{relation.replace(' ', '-')}_{date}", "relation": relation}
        train.append({"corpus": [fact.query.replace(BLANK, fact.object) for fact in found], **common})
        answer = [{"wikidata_id": "", "name": fact.object} for fact in found]
        test.append({"query": found[0].query, "answer": answer, **common})
    return train, test


def dated(triple: Triple, date: str, templates: dict[str, Template]) -> Dated:
    """A triple as a fact of a date, in the words of its relation's template or in the generic ones."""
    template = templates.get(triple.relation) or Template(triple.relation, GENERIC.format(relation=triple.relation))
    return Dated(triple.subject, template.code, triple.object, date, as_query(template, triple.subject))


def from_probes(probes: Path, templates: dict[str, Template], limit: int) -> list[Dated]:
    """TemporalWiki's changed probes as facts of the month they changed in."""
    months = ((read_triples(probes / f"{period}_changed.jsonl"), month) for period, month in MONTHS.items())
    return [dated(triple, month, templates) for triples, month in months for triple in triples[: limit or None]]


def coarser(date: str, version: str, where: str) -> str:
    """A day as the day, month or quarter that it is in. Raises UserError for anything that is no day."""
    if date_kind(date) != "day":
        raise UserError(f"{where}: the date {date!r} is no day such as 2021-9-30")
    year, month, _ = date_key(date)
    return {"day": plain_date(date), "month": f"{year}-{month}", "quarter": f"{year}-Q{(month + 2) // 3}"}[version]


def from_triples(path: Path, templates: dict[str, Template], version: str) -> list[Dated]:
    """Dated triples as facts by day, month or quarter. Raises UserError with file and line."""
    dates = []
    for where, row in read_jsonl(path):
        found = row.get("date") if isinstance(row, dict) else None
        dates.append(coarser(found if isinstance(found, str) else "", version, where))
    return [dated(triple, date, templates) for triple, date in zip(read_triples(path), dates, strict=True)]


def sample_facts(counts: dict[str, int], seed: int) -> list[Dated]:
    """Invented facts dealt to dates, shuffled; the first fact of every other date has a second answer."""
    rng = random.Random(seed)
    rows = invented_rows(seed)["to_learn"]
    rows = [row for row in rows if row["task_descriptive"].count(row["object"]) == 1]
    rng.shuffle(rows)
    facts: list[Dated] = []
    for number, (date, count) in enumerate(counts.items()):
        for place in range(count):
            row = rows.pop()
            query = row["task_descriptive"].replace(row["object"], BLANK)
            facts.append(Dated(row["subject"], row["relation_code"], row["object"], date, query))
            if place == 0 and number % 2 == 0:
                others = [name for name in OBJECTS[row["relation_code"]] if name != row["object"]]
                facts.append(facts[-1]._replace(object=rng.choice(others)))
    return facts


def lesson_row(triple: Triple, query: str) -> dict:
    """A fact for Train-Attention: the stream's sentence in its prefix form is both learned and asked."""
    document = cut(query, triple.object).document()
    return fact_row(triple, document.text, document.text, document.text, document.span)


def ta_from_probes(probes: Path, templates: dict[str, Template], facts: Iterable[Dated], count: int, seed: int) -> list:
    """Rows for Train-Attention from the unchanged probes."""
    asked = {fact.subject for fact in facts}
    triples = usable(triple for period in PERIODS for triple in read_triples(probes / f"{period}_unchanged.jsonl"))
    triples = [triple for triple in triples if triple.subject not in asked and triple.relation in templates]
    chosen = random.Random(seed).sample(triples, min(count, len(triples)))
    return [lesson_row(triple, as_query(templates[triple.relation], triple.subject)) for triple in chosen]


def ta_sample(count: int, seed: int) -> list[dict]:
    """Rows for Train-Attention from invented facts apart from the sample's."""
    rows = [row for row in invented_rows(seed)["ta_train"] if row["task_descriptive"].count(row["object"]) == 1]
    chosen = random.Random(seed).sample(rows, count)
    return [
        lesson_row(
            Triple(row["subject"], row["relation_code"], row["object"]),
            row["task_descriptive"].replace(row["object"], BLANK),
        )
        for row in chosen
    ]


def write(facts: Iterable[Dated], out: Path) -> None:
    """Write both files and say how many facts each date has."""
    train, test = stream_rows(facts)
    write_jsonl(out / "datesorted_train.jsonl", train)
    write_jsonl(out / "datesorted_test.jsonl", test)
    print(f"{out}: " + json.dumps(Counter(row["date"] for row in test)))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--probes", type=Path, help="TemporalWiki's eval folder")
    parser.add_argument("--triples", type=Path, help="JSONL file of {subject, relation, object, date}")
    parser.add_argument("--version", choices=("day", "month", "quarter"), default="month", help="dates of --triples")
    parser.add_argument("--templates", type=Path, help="CSV with the columns Wikidata ID, Relation, Template")
    parser.add_argument("--out", type=Path, default=REPO_ROOT / "data" / "online_wiki" / "month")
    parser.add_argument("--limit", type=int, default=0, help="probes of each month, at most; 0 takes all")
    parser.add_argument("--sample", type=Path, help="make the sample streams in this folder instead")
    parser.add_argument("--ta_facts", type=int, default=800, help="facts for Train-Attention")
    parser.add_argument("--seed", type=int, default=42, help="of the sample, and of what Train-Attention learns")
    args = parser.parse_args(arguments)
    if args.sample:
        for kind, counts in SAMPLE.items():
            write(sample_facts(counts, args.seed), args.sample / kind)
        write_facts(ta_sample(TA_SAMPLE, args.seed), args.sample / "ta")
        return
    if not args.templates or bool(args.probes) == bool(args.triples):
        parser.error("give --templates and one of --probes and --triples, or --sample")
    templates = read_templates(args.templates)
    if args.triples:
        facts = from_triples(args.triples, templates, args.version)
    else:
        facts = from_probes(args.probes, templates, args.limit)
        write_facts(ta_from_probes(args.probes, templates, facts, args.ta_facts, args.seed), args.out.parent / "ta")
    write(facts, args.out)
    codes = {template.code for template in templates.values()}
    known = sum(fact.relation in codes for fact in facts)
    print(f"{known} facts in the words of a template, {len(facts) - known} in the generic ones")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
