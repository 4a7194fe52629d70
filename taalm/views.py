"""Cloze views: a document's heaviest words said after each of its names, so that theta learns them from the names.

A document that names the object before the subject ("the bishop Raymond Gam ...") teaches a causal model nothing about
what follows the subject, and every probe asks subject -> object. A view is a head about a name of the document, a
template or a question, followed by what the weights point at: "Raymond Gam: bishop", "Raymond Gam has the position of
bishop". It is learned beside the document or in its place, its object's tokens alone weighing (docs/method.md).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from taalm.asking import Asker, Pair, Place, pairs_of_each, pooled_pairs
from taalm.errors import UserError
from taalm.models.split import SplitModel
from taalm.names import nearest_names
from taalm.text import Encoded, Span, encode, offsets
from taalm.weighters import Weighter
from taalm.weighters.documents import fixed


class View(NamedTuple):
    """Its text, where the object stands in it, and the log of its probability where its question was shared out."""

    text: str
    span: Span
    log: float = 0.0


@dataclass
class ViewsConfig:
    """Cloze views of the documents, for methods with `views` in their name."""

    templates: list[str] = field(default_factory=lambda: ["{name}: {object}", "{name} ({object}", "{name}, {object}"])
    """A view for every name and template; each holds {name} and ends with {object}."""
    names: PositiveInt = 6
    """Names of a document that lead its templates: those nearest to the object."""
    spans: PositiveInt = 1
    """Objects of a document: the words that weigh most, so many times."""
    questions: str = ""
    """Facts (jsonl), whose descriptive probes are the questions, or relation templates (CSV: Wikidata ID, Relation,
    Template). KL replay holds on to what theta_0 answers to them about names of the review text; --views.asked needs
    facts with their documents."""
    asked: NonNegativeInt = 0
    """Views of an object beside those of --views.templates: so many questions about the document's names, the likeliest
    by what the facts of --views.questions are asked (taalm/asking.py)."""
    pooled: bool = False
    """--views.asked is the mean: of all documents' questions the likeliest are asked, by what an object weighs and by
    what the facts of --views.questions are asked; a document may be asked none."""
    confidence: NonNegativeFloat = 0.0
    """A view's loss counts by its probability to this power, on average 1; it goes with --views.pooled, whose pairs
    have one. 0: all count alike."""
    held: NonNegativeInt = 0
    """KL replay holds on to so many questions about the 500 most frequent names of the review texts, those of which
    theta_0 knows most (taalm/known_answers.py), and to as many of the views' own about any name of these texts; 0: to
    one question about every name."""
    held_facts: bool = False
    """Beside those of --views.held: what theta_0 answers to the facts of --views.questions themselves, right or not."""
    documents: bool = True
    """Learn the documents beside their views; without them a document without a name is not learned at all."""

    def __post_init__(self) -> None:
        if not self.templates and not self.asked:
            raise UserError("--views.templates: give at least one, or --views.asked")
        if self.pooled and not self.asked:
            raise UserError("--views.pooled shares out the questions of --views.asked, and that is 0")
        if self.confidence and (self.templates or self.documents or not self.pooled):
            raise UserError(
                f"--views.confidence {self.confidence:g} is of questions that are shared out: it goes with "
                "--views.pooled true, --views.templates [] and --views.documents false"
            )
        if self.held_facts and not self.held:
            raise UserError("--views.held_facts goes with --views.held and facts (jsonl), and --views.held is 0")
        for template in self.templates:
            if template.count("{name}") != 1 or template.count("{object}") != 1 or not template.endswith("{object}"):
                raise UserError(f"--views.templates {template!r}: a template holds {{name}} and ends with {{object}}")


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


def cloze_views(text: str, span: Span, config: ViewsConfig, asked: Sequence[Pair] = ()) -> list[View]:
    """The views of a document with the object `span`: each view's text, and where the object stands in it.

    The templates of the configuration lead about the nearest names, then the pairs `asked`.
    """
    answer = text[slice(*span)]
    heads = [
        (template.removesuffix("{object}").replace("{name}", name), 0.0)
        for name in nearest_names(text, span, config.names)
        for template in config.templates
    ]
    heads += [(f"{pair.question.replace('<subject>', pair.name)} ", pair.score) for pair in asked]
    return [View(head + answer, (len(head), len(head) + len(answer)), log) for head, log in heads]


def views_of(
    tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], weights: Sequence[Tensor], config: ViewsConfig,
    split: SplitModel, asker: Asker | None = None,
) -> tuple[list[list[View]], list[str]]:  # fmt: skip
    """The views of each of the documents `rows` of `texts`, `weights` (T,) each, and the questions that they ask.

    `split` is theta_0. With an `asker` some of its pairs are asked too, a heavier object's first.
    """
    logs: dict[Place, float] = {}  # the log of an object's share of its document's weight
    for index, (text, row, values) in enumerate(zip(texts, rows, weights, strict=True)):
        places, own = offsets(tokenizer, text, row), values[1:].float().cpu()
        whole = own.sum().clamp_min(torch.finfo(own.dtype).tiny)
        for span in heaviest_spans(text, places, own.tolist(), config.spans):
            inside = [token for token, (start, end) in enumerate(places) if start < span[1] and span[0] < end]
            logs[index, span] = float((own[inside].sum() / whole).log())
    asked: dict[Place, list[Pair]] = {place: [] for place in logs}
    if asker is not None:
        parts = ([part[index] for index, _ in logs] for part in (texts, rows))
        pairs = asker.pairs(split, tokenizer, *parts, [span for _, span in logs])
        ranked = dict(zip(logs, pairs, strict=True))
        asked = pooled_pairs(ranked, logs, config.asked) if config.pooled else pairs_of_each(ranked, config.asked)
    views: list[list[View]] = [[] for _ in texts]
    for (index, span), some in asked.items():
        views[index] += cloze_views(texts[index], span, config, some)
    return views, [pair.question for some in asked.values() for pair in some]


def check_questions(config: ViewsConfig) -> None:
    """Raises UserError where --views.questions lacks what --views.asked, --views.held or --views.held_facts needs."""
    if config.asked and not config.questions.endswith(".jsonl"):
        raise UserError(
            f"--views.asked {config.asked} learns from facts with their documents what is asked: name a file of them "
            f"(jsonl) with --views.questions; it is {config.questions!r}"
        )
    if config.held and not config.questions:
        raise UserError(f"--views.held {config.held}: name the questions that are held on to with --views.questions")
    if config.held_facts and not config.questions.endswith(".jsonl"):
        raise UserError(
            "--views.held_facts goes with --views.held and facts (jsonl) for --views.questions; these are "
            f"{config.questions!r}"
        )


def describe_views(views: Sequence[Sequence[View]], pairs: Sequence[tuple[str, str]]) -> str:
    """How many views there are, and how many documents have one from the `pairs`' subject to its object.

    The others cannot be read through views. Without pairs (nobody knows what will be asked) the number alone.
    """
    said = f"{sum(map(len, views))} cloze views of {len(views)} documents"
    without = sum(not some for some in views)
    if without:
        said += f" ({without} without any)"
    if not pairs:
        return said
    right = [  # of every view: does it end with the fact's object, does it name its subject before that
        [(text[slice(*span)] == answer, subject in text[: span[0]]) for text, span, _ in some]
        for some, (subject, answer) in zip(views, pairs, strict=True)
    ]
    ends, names = (sum(any(flags[part] for flags in some) for some in right) for part in range(2))
    both = sum((True, True) in some for some in right)
    return (
        f"{said}: {ends} have one that ends with their fact's object, {names} one that names its subject, "
        f"{both} one that does both"
    )


def with_views(
    tokenizer: Any, views: Iterable[Sequence[View]], rows: Sequence[Encoded], weights: Sequence[Tensor],
    confidence: float = 0.0,
) -> tuple[list[Encoded], Weighter, list[float]]:  # fmt: skip
    """The documents `rows`, `weights` (T,) each, then their `views`, each once; the weighter of them all, and by how
    much each counts: a view by its probability to the power `confidence`, on average 1.

    Raises UserError where there is nothing: no documents, and no name that a view could be about.
    """
    logs: dict[tuple[str, Span], float] = {}
    for view in (view for some in views for view in some):
        logs[view[:2]] = max(view.log, logs.get(view[:2], -math.inf))
    said = [encode(tokenizer, *view) for view in logs]
    answers = [torch.tensor(view.answer[1:]).float() for view in said]
    together = [*rows, *said]
    if not together:
        raise UserError("--views.documents false: no document has a name that a view could be about; nothing to learn")
    counts = [1.0] * len(rows) + [math.exp(confidence * log) for log in logs.values()]
    mean = fmean(counts)
    weigh = fixed(together, [*(values[1:].float().cpu() for values in weights), *answers])
    return together, weigh, [count / mean for count in counts]
