"""How a fact of the online stream is taught and asked.

- prefix, as published: what stands before the answer (after it, where it comes first) is given, and the context with
  the answer is said: "Ana lives in" -> "Ana lives in Rome .". A decoder continues the context.
- span, as in CKL (Jang et al. 2022, section 4.2): a salient span of the sentence is masked by a sentinel, and said:
  "Ana lives in <extra_id_0> ." -> "<extra_id_0> Rome <extra_id_1>". A sentence is learned once for each of its spans:
  the answer and spaCy's entities beside it. Asked is the answer. It needs an encoder-decoder with T5's sentinels.

Where the answer stands in a text of the corpus is told by the query of the same fact; a text that is no such sentence
has its last salient span for an answer (spaCy: entities and noun phrases).
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from taalm.benchmarks.online_metrics import exact_match
from taalm.benchmarks.online_wiki import BLANK, Lesson, Query
from taalm.cell import Document
from taalm.weighters.ner import load_pipeline

Form = Literal["prefix", "span"]
FIRST, SECOND = "<extra_id_0>", "<extra_id_1>"
END = " ."


class Sentence(NamedTuple):
    """A sentence cut at its answer."""

    before: str
    after: str
    answer: str

    def context(self) -> str:
        """What is given in the prefix form, without the full stop."""
        return self.before or self.after.removesuffix(".").strip()

    def masked(self) -> str:
        """What is given in the span form."""
        return " ".join(part for part in (self.before, FIRST, self.after) if part)

    def document(self, form: Form = "prefix", where: str = "") -> Document:
        """The sentence as a document to learn."""
        if form == "span":
            start = len(FIRST) + 1
            span = (start, start + len(self.answer))
            return Document(f"{FIRST} {self.answer} {SECOND}", span, where, source=self.masked())
        given = self.context()
        start = len(given) + 1
        return Document(f"{given} {self.answer}{END}", (start, start + len(self.answer)), where, source=given)


def cut(sentence: str, answer: str, blank: str = BLANK) -> Sentence:
    """A sentence with a blank, its answer beside it."""
    before, _, after = sentence.partition(blank)
    return Sentence(before.strip(), after.strip(), answer)


def place_of_answer(text: str, queries: Iterable[Query]) -> Sentence | None:
    """A text that is one of the queries with something in its blank, cut there; or None."""
    text = text.rstrip()
    for query in queries:
        before, after, _ = cut(query.text, "")
        answer = text[len(before) : len(text) - len(after)].strip()
        if text.startswith(before) and text.endswith(after) and answer:
            return Sentence(before, after, answer)
    return None


def _at(text: str, span: Any) -> Sentence:
    return Sentence(text[: span.start_char].strip(), text[span.end_char :].strip(), span.text)


def _salient(parsed: Any) -> Sentence | None:
    """A parsed text cut at its last salient span, or None."""
    found = [span for span in (*parsed.ents, *parsed.noun_chunks) if re.search(r"\w", span.text)]
    return _at(parsed.text, max(found, key=lambda span: (span.end, -span.start))) if found else None


def _others(parsed: Any, known: Sentence) -> list[Sentence]:
    """A parsed text cut at each of its entities that do not touch the answer."""
    start = parsed.text.find(known.answer, len(known.before))
    apart = (span for span in parsed.ents if span.end_char <= start or start + len(known.answer) <= span.start_char)
    return [_at(parsed.text, span) for span in apart]


@dataclass(frozen=True)
class Taught:
    """What lessons of a stream teach: the documents of each, none where no answer was found."""

    documents: Sequence[Sequence[Document]]
    guessed: int  # how many texts no query told the answer of
    dropped: int  # and of these, how many had no salient span at all


def teach(lessons: Sequence[Lesson], queries: Iterable[Query], form: Form, workers: int = 0) -> Taught:
    """Documents to learn; `workers` > 1 parses in so many processes."""
    by_fact: dict[str, list[Query]] = {}
    for query in queries:
        by_fact.setdefault(query.fact, []).append(query)
    found = [place_of_answer(lesson.text, by_fact.get(lesson.fact, ())) for lesson in lessons]
    unclear = [index for index, sentence in enumerate(found) if sentence is None]
    cuts = [[sentence] if sentence else [] for sentence in found]
    parsed_too = range(len(lessons)) if form == "span" else unclear
    if parsed_too:
        texts = [lessons[index].text for index in parsed_too]
        for index, parsed in zip(parsed_too, load_pipeline().pipe(texts, n_process=max(1, workers)), strict=True):
            sentence = found[index] or _salient(parsed)
            others = _others(parsed, sentence) if sentence and form == "span" else []
            cuts[index] = [sentence, *others] if sentence else []
    documents = [
        [sentence.document(form, lesson.where) for sentence in sentences]
        for lesson, sentences in zip(lessons, cuts, strict=True)
    ]
    return Taught(documents, len(unclear), sum(not sentences for sentences in cuts))


@dataclass(frozen=True)
class Asked:
    """A query as it is asked: what the model is given and what it should say."""

    given: str
    wanted: tuple[str, ...]  # whole strings, one for each name
    context: str  # the words of these that are no answer
    query: Query

    def judge(self, said: str) -> tuple[bool, bool]:
        """(exact match of the whole string, exact match of the answer alone), both normalised."""
        rest = " ".join(said.split()[len(self.context.split()) :])
        return exact_match(said, self.wanted) and bool(rest), exact_match(rest, self.query.names)


def shortened(found: Document | Asked, given: str) -> Document | Asked:
    """A document or a query of the prefix form with a shorter given text."""
    if isinstance(found, Document):
        off = len(found.source) - len(given)
        start, end = found.span
        text = given + found.text[len(found.source) :]
        return found._replace(text=text, span=(start - off, end - off), source=given)
    wanted = tuple(given + whole[len(found.given) :] for whole in found.wanted)
    return replace(found, given=given, wanted=wanted, context=given)


def ask(query: Query, form: Form) -> Asked:
    """The query in a form."""
    sentence = cut(query.text, "")
    if form == "span":
        return Asked(sentence.masked(), query.names, "", query)
    given = sentence.context()
    return Asked(given, tuple(f"{given} {name}" for name in query.names), given, query)


def clean(said: str, form: Form) -> str:
    """What counts of a generated string: up to its full stop or line end; in the span form, the first span."""
    if form == "span":
        return said.partition(FIRST)[2].partition("<extra_id_")[0].strip()
    return re.split(r" \.|\n", said)[0].strip()
