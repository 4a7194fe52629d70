"""How a fact of the online stream is taught and asked.

- prefix, as published: what stands before the answer (after it, where it comes first) is given, and the context with
  the answer is said: "Ana lives in" -> "Ana lives in Rome .". A decoder continues the context.
- span, as in CKL (Jang et al. 2022, section 4.2): a salient span of the sentence is masked by a sentinel, and said:
  "Ana lives in <extra_id_0> ." -> "<extra_id_0> Rome <extra_id_1>". It needs an encoder-decoder with T5's sentinels.

Where the answer stands in a text of the corpus is told by the query of the same fact; a text that is no such sentence
has its last salient span for an answer (spaCy: entities and noun phrases).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from taalm.benchmarks.online_metrics import normalised
from taalm.benchmarks.online_wiki import BLANK, Lesson, Query
from taalm.cell import Document
from taalm.weighters.ner import load_pipeline

Form = Literal["prefix", "span"]
FIRST, SECOND = "<extra_id_0>", "<extra_id_1>"
END = " ."


def sides(sentence: str, blank: str = BLANK) -> tuple[str, str]:
    """What stands before and after the blank of a sentence."""
    before, _, after = sentence.partition(blank)
    return before.strip(), after.strip()


def context(before: str, after: str) -> str:
    """What is given in the prefix form, without the full stop."""
    return before or after.removesuffix(".").strip()


def place_of_answer(text: str, queries: Iterable[Query]) -> tuple[str, str, str] | None:
    """(before, after, answer) of a text that is one of the queries with something in its blank, or None."""
    for query in queries:
        before, after = sides(query.text)
        stop = len(text.rstrip()) - len(after)
        if text.startswith(before) and text.rstrip().endswith(after) and text[len(before) : stop].strip():
            return before, after, text[len(before) : stop].strip()
    return None


def _salient(parsed: Any) -> tuple[str, str, str] | None:
    """(before, after, answer) of the last salient span of a parsed text."""
    found = [span for span in (*parsed.ents, *parsed.noun_chunks) if re.search(r"\w", span.text)]
    if not found:
        return None
    last = max(found, key=lambda span: (span.end, -span.start))
    text = parsed.text
    return text[: last.start_char].strip(), text[last.end_char :].strip(), last.text


@dataclass(frozen=True)
class Taught:
    """The lessons of a stream as documents, each with its date, relation and fact."""

    documents: Sequence[Document]
    lessons: Sequence[Lesson]
    guessed: int  # how many texts no query told the answer of
    dropped: int  # and of these, how many had no salient span at all


def teach(lessons: Sequence[Lesson], queries: Iterable[Query], form: Form, workers: int = 0) -> Taught:
    """Documents to learn; `workers` > 1 parses in so many processes."""
    by_fact: dict[str, list[Query]] = {}
    for query in queries:
        by_fact.setdefault(query.fact, []).append(query)
    found = [place_of_answer(lesson.text, by_fact.get(lesson.fact, ())) for lesson in lessons]
    unclear = [index for index, place in enumerate(found) if place is None]
    if unclear:
        texts = [lessons[index].text for index in unclear]
        for index, parsed in zip(unclear, load_pipeline().pipe(texts, n_process=max(1, workers)), strict=True):
            found[index] = _salient(parsed)
    kept = [(lesson, place) for lesson, place in zip(lessons, found, strict=True) if place is not None]
    documents = [as_document(*place, form, lesson.where) for lesson, place in kept]
    return Taught(documents, [lesson for lesson, _ in kept], len(unclear), len(lessons) - len(kept))


def as_document(before: str, after: str, answer: str, form: Form = "prefix", where: str = "") -> Document:
    """A sentence, cut at its answer, as a document to learn."""
    if form == "span":
        text = f"{FIRST} {answer} {SECOND}"
        span = (len(FIRST) + 1, len(FIRST) + 1 + len(answer))
        return Document(text, span, where, source=" ".join(part for part in (before, FIRST, after) if part))
    given = context(before, after)
    start = len(given) + 1
    return Document(f"{given} {answer}{END}", (start, start + len(answer)), where, source=given)


@dataclass(frozen=True)
class Asked:
    """A query as it is asked: what the model is given and what it should say."""

    given: str
    wanted: tuple[str, ...]  # whole strings, one for each name
    context: str  # the words of these that are no answer
    query: Query

    def judge(self, said: str) -> tuple[bool, bool]:
        """(exact match of the whole string, exact match of the answer alone), both normalised."""
        words, names = normalised(said), {normalised(name) for name in self.query.names}
        rest = " ".join(words.split()[len(normalised(self.context).split()) :])
        return words in {normalised(whole) for whole in self.wanted}, rest in names


def ask(query: Query, form: Form) -> Asked:
    """The query in a form."""
    before, after = sides(query.text)
    if form == "span":
        return Asked(" ".join(part for part in (before, FIRST, after) if part), query.names, "", query)
    given = context(before, after)
    return Asked(given, tuple(f"{given} {name}" for name in query.names), given, query)


def clean(said: str, form: Form) -> str:
    """What counts of a generated string: up to its full stop or line end; in the span form, the first span."""
    if form == "span":
        return said.partition(FIRST)[2].partition("<extra_id_")[0].strip()
    return re.split(r" \.|\n", said)[0].strip()
