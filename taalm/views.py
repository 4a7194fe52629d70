"""Cloze views: a document's heaviest words said after each of its names, so that theta learns them from the names.

A document that names the object before the subject ("the bishop Raymond Gam ...") teaches a causal model nothing about
what follows the subject, and every probe asks subject -> object. A view is a head about a name of the document, a
template or a question, followed by what the weights point at: "Raymond Gam: bishop", "Raymond Gam has the position of
bishop". It is learned beside the document, its object's tokens alone weighing (docs/method.md, "Cloze views"). Names
are runs of capitalised words: for languages that write names so.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor

from taalm.benchmarks.templates import read_templates
from taalm.errors import UserError
from taalm.facts import read_facts
from taalm.likely_questions import likely_questions
from taalm.models.split import SplitModel
from taalm.text import Encoded, Span, encode, offsets
from taalm.weighters.documents import fixed

LINKS = "of|the|de|von|van|du|da|di|del|la|le|&"
NAME = re.compile(rf"[A-Z][\w'’-]*(?:\s+(?:(?:{LINKS})\s+){{0,2}}[A-Z0-9][\w'’-]*)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPENERS = _words(  # capitalised where they open a sentence, no part of a name
    "The A An In On At He She It They His Her Its Their Our I We You This That These Those There After Before "
    "During From By For With And But Or As When While Since Also However Although Both Other Some Many Most One "
    "Two Three First Second"
)
DATES = _words(
    "January February March April May June July August September October November December Monday Tuesday "
    "Wednesday Thursday Friday Saturday Sunday"
)
TITLES = _words(  # before a name, and nobody's own: nobody asks about Bishop Raymond Gam
    "Sir Dame Lord Lady Dr Mr Mrs Ms Miss Professor Prof President Chancellor Minister Senator Governor Mayor "
    "Judge Justice King Queen Prince Princess Emperor Duke Duchess Count Baron Pope Cardinal Archbishop Bishop "
    "Father Brother Sister Reverend Rev Rabbi General Colonel Major Captain Lieutenant Admiral"
)
LEADS = OPENERS | DATES | TITLES
View = tuple[str, Span]  # its text, and where the object stands in it
SHORTEST = 3  # characters of a name
ASKED_ABOUT = 4  # names, when questions are looked for that suit an object
PASSAGE = 10  # words that follow the name there
GAP = " _"  # stands where a head's answer would; nothing depends on what it is


@dataclass
class ViewsConfig:
    """Cloze views of the documents, for methods with `views` in their name."""

    templates: list[str] = field(default_factory=lambda: ["{name}: {object}", "{name} ({object}", "{name}, {object}"])
    """A view for every name and template; each holds {name} and ends with {object}."""
    names: PositiveInt = 6
    """Names of a document that lead its views: those nearest to the object."""
    spans: PositiveInt = 1
    """Objects of a document: the words that weigh most, so many times."""
    questions: str = ""
    """Facts (jsonl), whose descriptive probes are the questions, or relation templates (CSV: Wikidata ID, Relation,
    Template). KL replay holds on to what theta_0 answers to them about names of the review text; for --views.asked."""
    asked: NonNegativeInt = 0
    """Views of an object beside those of --views.templates: so many of --views.questions, those after which theta_0
    expects it more than the other documents' objects."""

    def __post_init__(self) -> None:
        if not self.templates and not self.asked:
            raise UserError("--views.templates: give at least one, or --views.asked")
        for template in self.templates:
            if template.count("{name}") != 1 or template.count("{object}") != 1 or not template.endswith("{object}"):
                raise UserError(f"--views.templates {template!r}: a template holds {{name}} and ends with {{object}}")


def find_names(text: str) -> list[Span]:
    """The places of the names in a text: runs of capitalised words, without what only stands before or after a name.

    That is a word that opens a sentence, a title, a date, a possessive 's.
    """
    found = []
    for match in NAME.finditer(text):
        words = list(re.finditer(r"\S+", match[0]))
        while words and _leads(words[0][0]):
            words.pop(0)
        while words and (words[-1][0].isdigit() or words[-1][0] in DATES):
            words.pop()
        if words:
            start, end = words[0].start(), words[-1].end() - 2 * words[-1][0].endswith(("'s", "’s"))
            if end - start >= SHORTEST:
                found.append((match.start() + start, match.start() + end))
    return found


def _leads(word: str) -> bool:
    return word in LEADS or not word[0].isupper()


def nearest_names(text: str, span: Span, count: int) -> list[str]:
    """The `count` names nearest to the characters `span` that do not overlap it, each once, the nearest first."""
    apart = [(start, end) for start, end in find_names(text) if end <= span[0] or span[1] <= start]
    apart.sort(key=lambda place: abs(place[0] - span[0]))
    return list(dict.fromkeys(text[start:end] for start, end in apart))[:count]


def heaviest_spans(text: str, places: Sequence[Span], weights: Sequence[float], count: int) -> list[Span]:
    """The `count` spans of whole words around the heaviest tokens, a neighbour of at least half their weight included.

    `places` are the tokens' characters and `weights` what each weighs.
    """
    free = [any(map(str.isalnum, text[start:end])) for start, end in places]
    found: list[Span] = []

    def joins(token: int, border: int, heaviest: float) -> bool:
        """Whether a free token belongs to the span: it is heavy too, or no word ends at the character `border`."""
        return free[token] and (weights[token] >= heaviest / 2 or text[border - 1 : border + 1].isalnum())

    while len(found) < count and any(free):
        top = max((index for index in range(len(places)) if free[index]), key=lambda index: weights[index])
        first = last = top
        while first > 0 and joins(first - 1, places[first][0], weights[top]):
            first -= 1
        while last + 1 < len(places) and joins(last + 1, places[last][1], weights[top]):
            last += 1
        free[first : last + 1] = [False] * (last + 1 - first)
        letters = [place for place in range(places[first][0], places[last][1]) if text[place].isalnum()]
        found.append((letters[0], letters[-1] + 1))
    return found


def cloze_views(text: str, span: Span, config: ViewsConfig, asked: Sequence[str] = ()) -> list[View]:
    """The views of a document with the object `span`: each view's text, and where the object stands in it.

    `asked` are templates beside the configured ones.
    """
    answer = text[slice(*span)]
    views = []
    for name in nearest_names(text, span, config.names):
        for template in [*config.templates, *asked]:
            head = template.removesuffix("{object}").replace("{name}", name)
            views.append((head + answer, (len(head), len(head) + len(answer))))
    return views


def views_of(
    tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], weights: Sequence[Tensor], config: ViewsConfig,
    split: SplitModel,
) -> list[list[View]]:  # fmt: skip
    """The views of each of the documents `rows` of `texts`, `weights` (T,) each; `split` is theta_0."""
    spans = [
        heaviest_spans(text, offsets(tokenizer, text, row), values[1:].tolist(), config.spans)
        for text, row, values in zip(texts, rows, weights, strict=True)
    ]
    asked = _asked(tokenizer, texts, spans, config, split) if config.asked else {}
    return [
        [view for span in some for view in cloze_views(text, span, config, asked.get(text[slice(*span)], ()))]
        for text, some in zip(texts, spans, strict=True)
    ]


def _asked(
    tokenizer: Any, texts: Sequence[str], spans: Sequence[Sequence[Span]], config: ViewsConfig, split: SplitModel
) -> dict[str, list[str]]:
    """The questions that suit each object, as templates; they are tried with some of the documents' own names."""
    if not config.questions:
        raise UserError(f"--views.asked {config.asked} needs questions: name a file with --views.questions")
    objects = [text[slice(*span)] for text, some in zip(texts, spans, strict=True) for span in some]
    names = sorted({text[slice(*span)] for text in texts for span in find_names(text)})
    some = random.Random(len(names)).sample(names, min(ASKED_ABOUT, len(names))) or ["It"]
    found = likely_questions(split, tokenizer, read_questions(config.questions), some, objects, config.asked)
    return {
        answer: [f"{question.replace('<subject>', '{name}')} {{object}}" for question in questions]
        for answer, questions in found.items()
    }


def describe_views(views: Sequence[Sequence[View]], pairs: Sequence[tuple[str, str]]) -> str:
    """How many views there are, and how many documents have one from the `pairs`' subject to its object.

    The others cannot be read through views. Without pairs (nobody knows what will be asked) the number alone.
    """
    said = f"{sum(map(len, views))} cloze views of {len(views)} documents"
    if not pairs:
        return said
    right = [  # of every view: does it end with the fact's object, does it name its subject before that
        [(text[slice(*span)] == answer, subject in text[: span[0]]) for text, span in some]
        for some, (subject, answer) in zip(views, pairs, strict=True)
    ]
    ends, names = (sum(any(flags[part] for flags in some) for some in right) for part in range(2))
    both = sum((True, True) in some for some in right)
    return (
        f"{said}: {ends} have one that ends with their fact's object, {names} one that names its subject, "
        f"{both} one that does both"
    )


def with_views(
    tokenizer: Any, views: Iterable[Sequence[View]], rows: Sequence[Encoded], weights: Sequence[Tensor]
) -> tuple[list[Encoded], Any]:
    """The documents `rows`, `weights` (T,) each, then their `views`, each once; and the weighter of them all."""
    views = [encode(tokenizer, *view) for view in dict.fromkeys(view for some in views for view in some)]
    answers = [torch.tensor(view.answer[1:]).float() for view in views]
    together = [*rows, *views]
    return together, fixed(together, [*(values[1:].float().cpu() for values in weights), *answers])


def review_views(
    texts: Iterable[str], config: ViewsConfig, avoided: frozenset[str], seed: int
) -> list[tuple[str, Span | None]]:
    """What KL replay holds on to beside views: heads of views about the names of the review texts, each name once.

    A head is a question of --views.questions about the name, or a template up to its object; a gap follows, marked as
    the answer, so that theta_0's expectation of it is what is held on to. Without questions passages that begin with
    the name come too, unmarked. No name is one of those `avoided` (the probes' subjects).
    """
    found: list[tuple[str, Span | None]] = []
    questions, rng = read_questions(config.questions), random.Random(seed)
    places = {text[slice(*span)]: (text, span[0]) for text in texts for span in find_names(text)}
    for number, (name, (text, start)) in enumerate(places.items()):
        if name in avoided:
            continue
        if questions:
            heads = [rng.choice(questions).replace("<subject>", name)]
        else:
            heads = []
            found.append((" ".join(text[start:].split()[: len(name.split()) + PASSAGE]), None))
        if config.templates:
            template = config.templates[number % len(config.templates)]
            heads.append(template.removesuffix("{object}").replace("{name}", name).rstrip())
        found += [(head + GAP, (len(head), len(head) + len(GAP))) for head in heads]
    rng.shuffle(found)
    return found


def read_questions(path: str) -> list[str]:
    """Questions with <subject> in them, up to their object: a file's relation templates, or the probes of its facts.

    Templates are a CSV file's, facts those of a jsonl file (the same question once). Raises UserError.
    """
    if not path:
        return []
    if path.endswith(".jsonl"):
        facts = read_facts(path)
        heads = [f.task_descriptive[: f.answer_span("descriptive")[0]].replace(f.subject, "<subject>") for f in facts]
    else:
        heads = [template.sentence.partition("<object>")[0] for template in read_templates(Path(path)).values()]
    found = sorted({head.rstrip() for head in heads if "<subject>" in head})
    if not found:
        raise UserError(f"--views.questions {path}: nothing there names a subject before its object")
    return found
