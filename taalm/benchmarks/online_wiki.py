"""The online wiki stream (OCKL): dated facts, one training call per date, asked about the last, this and the next date.

Rows of `datesorted_train.jsonl`: {corpus: [texts], date, id: "Q.._P.._date", relation}; of `datesorted_test.jsonl`:
{query: "... _X_ .", answer: [{wikidata_id, name}], date, id, relation}. A date is a day (2019-1-31), a month (2019-1)
or a quarter (2019-Q1); a stream has one kind.
"""

import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from taalm.errors import UserError
from taalm.facts import read_jsonl

BLANK = "_X_"
KINDS = {
    "day": re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})"),
    "month": re.compile(r"(\d{4})-(\d{1,2})"),
    "quarter": re.compile(r"(\d{4})-Q([1-4])"),
}

DateKey = tuple[int, ...]


def date_kind(text: str) -> str | None:
    """day, month or quarter; None for anything else, 2021-2-30 and 2021-13 too."""
    for kind, pattern in KINDS.items():
        match = pattern.fullmatch(text)
        if match:
            try:
                datetime.date(*[*map(int, match.groups()), 1, 1][:3])
            except ValueError:
                return None
            return kind
    return None


def date_key(text: str) -> DateKey:
    """The numbers of a date, to sort by: as text 2019-10 would come before 2019-2. Raises ValueError for no date."""
    kind = date_kind(text)
    if kind is None:
        raise ValueError(f"{text!r} is no date")
    return tuple(map(int, re.findall(r"\d+", text)))


def plain_date(text: str) -> str:
    """The date without leading zeros: 2021-09 and 2021-9 are one. Raises ValueError for no date."""
    numbers = date_key(text)
    return f"{numbers[0]}-Q{numbers[1]}" if date_kind(text) == "quarter" else "-".join(map(str, numbers))


@dataclass(frozen=True)
class Lesson:
    """What a date teaches: one text of a row's corpus."""

    text: str
    date: str
    fact: str
    relation: str
    where: str


@dataclass(frozen=True)
class Query:
    """What is asked: a sentence with `_X_` in the answer's place, and the names that answer it."""

    text: str
    names: tuple[str, ...]
    date: str
    fact: str
    relation: str
    where: str


def _field(row: object, name: str, kind: type, where: str) -> object:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    value = row.get(name)
    if not isinstance(value, kind) or not value:
        raise UserError(f"{where}: the field {name!r} must be {kind.__name__} and not empty, found {value!r}")
    return value


def _common(row: object, where: str) -> dict[str, str]:
    """date, fact and relation of a row of either file."""
    found = {name: str(_field(row, name, str, where)) for name in ("date", "id", "relation")}
    if date_kind(found["date"]) is None:
        raise UserError(f"{where}: the date {found['date']!r} is no 2019-1-31, 2019-1 or 2019-Q1")
    code = re.search(r"_(P\d+)_", found["id"])  # published rows may name the relation in words
    relation = code[1] if code else found["relation"]
    return {"date": plain_date(found["date"]), "fact": found["id"], "relation": relation, "where": where}


def read_lessons(path: str | Path) -> list[Lesson]:
    """The texts of a train file, in its order. Raises UserError with file and line."""
    lessons = []
    for where, row in read_jsonl(path):
        common = _common(row, where)
        for text in _field(row, "corpus", list, where):
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where}: 'corpus' must hold texts, found {text!r}")
            lessons.append(Lesson(text=text, **common))
    if not lessons:
        raise UserError(f"{path}: holds no texts")
    return lessons


def read_queries(path: str | Path) -> list[Query]:
    """The queries of a test file, in its order. Raises UserError with file and line."""
    queries = []
    for where, row in read_jsonl(path):
        common = _common(row, where)
        text = str(_field(row, "query", str, where))
        if text.count(BLANK) != 1:
            raise UserError(f"{where}: the query must have {BLANK} once: {text!r}")
        names = []
        for answer in _field(row, "answer", list, where):
            names.append(str(_field(answer, "name", str, where)))
        queries.append(Query(text=text, names=tuple(names), **common))
    if not queries:
        raise UserError(f"{path}: holds no queries")
    return queries


def dates_of(*rows: Iterable[Lesson | Query]) -> list[str]:
    """All dates in order, by their numbers. Raises UserError when they are of different kinds."""
    first: dict[str, str] = {}
    dates: set[str] = set()
    for group in rows:
        for row in group:
            first.setdefault(str(date_kind(row.date)), row.where)
            dates.add(row.date)
    if len(first) > 1:
        places = ", ".join(f"{kind} ({where})" for kind, where in first.items())
        raise UserError(f"a stream has dates of one kind; here are {places}")
    return sorted(dates, key=date_key)
