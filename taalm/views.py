"""Cloze views: a document's heaviest words said after each of its names, so that theta learns them from the names.

A document that names the object before the subject ("the bishop Raymond Gam ...") teaches a causal model nothing about
what follows the subject, and every probe asks subject -> object. A view is a name of the document followed by what the
weights point at, "Raymond Gam: bishop"; it is learned beside the document, its object's tokens alone weighing
(docs/method.md, "Cloze views"). Names are runs of capitalised words: for languages that write names so.
"""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from taalm.benchmarks.templates import read_templates
from taalm.errors import UserError
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
OPENED = 4  # names of a review text that its views begin with
PASSAGE = 10  # words that follow the name there


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
    """Relation templates (CSV: Wikidata ID, Relation, Template) for KL replay: what theta_0 answers to them about names
    of the review text is held on to as well."""

    def __post_init__(self) -> None:
        if not self.templates:
            raise UserError("--views.templates: give at least one")
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


def cloze_views(text: str, span: Span, config: ViewsConfig) -> list[View]:
    """The views of a document with the object `span`: each view's text, and where the object stands in it."""
    answer = text[slice(*span)]
    views = []
    for name in nearest_names(text, span, config.names):
        for template in config.templates:
            head = template.removesuffix("{object}").replace("{name}", name)
            views.append((head + answer, (len(head), len(head) + len(answer))))
    return views


def views_of(
    tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], weights: Sequence[Tensor], config: ViewsConfig
) -> list[list[View]]:
    """The views of each of the documents `rows` of `texts`, `weights` (T,) each."""
    found = []
    for text, row, values in zip(texts, rows, weights, strict=True):
        spans = heaviest_spans(text, offsets(tokenizer, text, row), values[1:].tolist(), config.spans)
        found.append([view for span in spans for view in cloze_views(text, span, config)])
    return found


def describe_views(views: Sequence[Sequence[View]], pairs: Sequence[tuple[str, str]]) -> str:
    """How many views there are, and how many documents have one from the `pairs`' subject to its object.

    The others cannot be read through views. Without pairs (nobody knows what will be asked) the number alone.
    """
    said = f"{sum(map(len, views))} cloze views of {len(views)} documents"
    if not pairs:
        return said
    right = [  # of every view: does it end with the fact's object, does it begin with its subject
        [(text[slice(*span)] == answer, text.startswith(subject)) for text, span in some]
        for some, (subject, answer) in zip(views, pairs, strict=True)
    ]
    ends, begins = (sum(any(flags[part] for flags in some) for some in right) for part in range(2))
    both = sum((True, True) in some for some in right)
    return (
        f"{said}: {ends} have one that ends with their fact's object, {begins} one that begins with its subject, "
        f"{both} one that does both"
    )


def with_views(
    tokenizer: Any, views: Iterable[Sequence[View]], rows: Sequence[Encoded], weights: Sequence[Tensor]
) -> tuple[list[Encoded], Any]:
    """The documents `rows`, `weights` (T,) each, then their `views`; and the weighter of them all."""
    views = [encode(tokenizer, *view) for some in views for view in some]
    answers = [torch.tensor(view.answer[1:]).float() for view in views]
    together = [*rows, *views]
    return together, fixed(together, [*(values[1:].float().cpu() for values in weights), *answers])


def review_views(texts: Iterable[str], config: ViewsConfig, avoided: frozenset[str], seed: int) -> list[str]:
    """What KL replay holds on to beside views: passages that begin with a name, and templates' heads with one.

    No view begins with one of the names `avoided` (the probes' subjects). With --views.questions a question about every
    name comes third: a relation's template up to its object.
    """
    views, questions = [], read_questions(config.questions)
    rng = random.Random(seed)
    for text in texts:
        first: dict[str, int] = {}
        for start, end in find_names(text):
            first.setdefault(text[start:end], start)
        for number, (name, start) in enumerate(list(first.items())[:OPENED]):
            if name not in avoided:
                words = text[start:].split()[: len(name.split()) + PASSAGE]
                head = config.templates[number % len(config.templates)].removesuffix("{object}")
                views += [" ".join(words), head.replace("{name}", name).rstrip()]
                if questions:
                    views.append(rng.choice(questions).replace("<subject>", name))
    rng.shuffle(views)
    return views


def read_questions(path: str) -> list[str]:
    """The relations' templates of a file up to <object>, those that name the subject before it. Raises UserError."""
    if not path:
        return []
    heads = [template.sentence.partition("<object>")[0].rstrip() for template in read_templates(Path(path)).values()]
    found = sorted(head for head in heads if "<subject>" in head)
    if not found:
        raise UserError(f"--views.questions {path}: no template names <subject> before <object>")
    return found
