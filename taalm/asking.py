"""What a document will be asked: which question about which of its names, if a span of it is the answer.

TA-train shows it: each of its facts has a document, an object there and a probe. Two linear probes (Alain and Bengio
2017) read theta_0's states half-way up and say a question each: the object's probe which question the object answers
("jazz" and "plays"), the names' probe which question a name is asked, or none ("Leon Breeden" and "plays"). Both
together rank the pairs of a name and a question. They learn from TA-train alone, as phi does.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taalm.errors import UserError
from taalm.facts import Fact
from taalm.linear_probe import Classifier
from taalm.models.split import SplitModel
from taalm.names import names_apart
from taalm.shown import LONGEST, Shown, middle_states
from taalm.text import Encoded, Span, offsets, pad_token

OBJECT_DECAY, NAME_DECAY = 3e-4, 1e-4  # of the probes' weights
UNASKED = 0.02  # what a name weighs that is no subject; one that is weighs 1 / its question's facts


class Pair(NamedTuple):
    """A question with <subject> in it about a name of a document, and its log-likelihood, up to a constant.

    Of the pairs that `pooled_pairs` returns it is the log of their probability.
    """

    score: float
    name: str
    question: str


Place = tuple[int, Span]  # a document's number, and an object's characters there
Ranked = Mapping[Place, Sequence[Pair]]  # an object's pairs, the likeliest first


class _Read(NamedTuple):
    """What the probes see of a document: its object's features (H,), its names, their places and features (, H + 8)."""

    object: Tensor
    names: list[str]
    places: list[Span]
    features: Tensor


def _read(text: str, places: Sequence[Span], states: Tensor, span: Span) -> _Read | None:
    """`states` (T, H) are those of the tokens at `places`. None where none of the object's tokens is among them."""

    def pooled(part: Span) -> Tensor | None:
        inside = [index for index, (start, end) in enumerate(places) if start < part[1] and part[0] < end]
        return states[inside].mean(0) if inside else None

    names, stand, features = [], [], []
    for rank, found in enumerate(names_apart(text, span)):
        state, name = pooled(found), text[slice(*found)]
        if state is not None:
            names.append(name)
            stand.append(found)
            features.append(torch.cat([state, _place(text, name, found, span, rank)]))
    answer = pooled(span)
    if answer is None:
        return None
    return _Read(answer, names, stand, torch.stack(features) if names else torch.empty(0, 0))


def _place(text: str, name: str, found: Span, span: Span, rank: int) -> Tensor:
    """Where a name stands, its features beside its state: before the object, first, how near, how long, how often."""
    distance = min(abs(found[0] - span[0]) / 200, 3.0)
    near = (float(rank == 0), float(rank == 1), min(rank, 10) / 10, distance)
    first = (float(found[0] < span[0]), float(found[0] < 5))
    return torch.tensor([*first, *near, len(name.split()) / 5, text.count(name) / 3])


def _overlaps(fact: Fact, place: Span) -> bool:
    """Whether a place in the fact's document lies over its subject."""
    found = re.finditer(re.escape(fact.subject), fact.evidence)
    return any(place[0] < match.end() and match.start() < place[1] for match in found)


def probe_head(fact: Fact) -> str | None:
    """A fact's descriptive probe up to its object; None if its subject is named after the object."""
    head = fact.task_descriptive[: fact.answer_span("descriptive")[0]].rstrip()
    return head if fact.subject in head else None


def question_of(fact: Fact) -> str | None:
    """The same with <subject> for its subject."""
    head = probe_head(fact)
    return head and head.replace(fact.subject, "<subject>")


class Asker:
    """Ranks the questions about a document's names, having seen what the facts of TA-train are asked.

    Raises UserError where no fact has a question.
    """

    def __init__(self, tokenizer: Any, shown: Shown):
        taught = [(*some, question) for some in zip(*shown, strict=True) if (question := question_of(some[0]))]
        self.questions = sorted({question for *_, question in taught})
        known = []
        for fact, row, states, question in taught:
            one = _read(fact.evidence, offsets(tokenizer, fact.evidence, row), states, fact.object_span())
            if one is not None:
                known.append((one, fact, self.questions.index(question)))
        if not known:
            raise UserError(
                "--views.asked: no fact of --views.questions has a probe that names its subject before its object, and "
                f"its object among the first {LONGEST} tokens of its document"
            )
        count = len(self.questions)
        asked = torch.tensor([question for _, _, question in known])
        share = 1 / asked.bincount(minlength=count).clamp_min(1)  # every question weighs the same
        self.object = Classifier(
            torch.stack([one.object for one, *_ in known]), asked, share[asked], count, OBJECT_DECAY
        )
        features, classes, weights = [], [], []
        for one, fact, question in known:
            for name, place, seen in zip(one.names, one.places, one.features, strict=True):
                is_subject = name == fact.subject
                if is_subject or not _overlaps(fact, place):  # a part of the subject is neither a subject nor none
                    features.append(seen)
                    classes.append(question if is_subject else count)
                    weights.append(float(share[question]) if is_subject else UNASKED)
        self.names = None
        if classes:
            examples = torch.stack(features), torch.tensor(classes), torch.tensor(weights)
            self.names = Classifier(*examples, count + 1, NAME_DECAY)

    def pairs(
        self, split: SplitModel, tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], spans: Sequence[Span]
    ) -> list[list[Pair]]:
        """The pairs of each document and object, the likeliest first; `split` is theta_0, as it read `shown`."""
        once = list(dict.fromkeys(rows))
        states = dict(zip(once, middle_states(split, once, pad_token(tokenizer)), strict=True))
        return [
            self._ranked(_read(text, offsets(tokenizer, text, row), states[row], span))
            for text, row, span in zip(texts, rows, spans, strict=True)
        ]

    def _ranked(self, read: _Read | None) -> list[Pair]:
        if read is None or not read.names or self.names is None:
            return []
        scores = self.object(read.object[None]) + self.names(read.features)[:, :-1]
        best: dict[tuple[str, str], float] = {}  # a name that occurs twice counts where it is likelier
        for name, row in zip(read.names, scores.tolist(), strict=True):
            for question, score in zip(self.questions, row, strict=True):
                best[name, question] = max(score, best.get((name, question), score))
        return sorted((Pair(score, *pair) for pair, score in best.items()), key=lambda pair: (-pair.score, pair[1:]))


def pairs_of_each(ranked: Ranked, count: int) -> dict[Place, list[Pair]]:
    """The `count` likeliest pairs of every object; what has been asked is not asked of a document's next object."""
    found, taken = {}, defaultdict(set)
    for place, pairs in ranked.items():
        asked = taken[place[0]]
        found[place] = [pair for pair in pairs if pair[1:] not in asked][:count]
        asked.update(pair[1:] for pair in found[place])
    return found


def pooled_pairs(ranked: Ranked, logs: Mapping[Place, float], count: int) -> dict[Place, list[Pair]]:
    """The likeliest pairs of all objects, `count` times as many as there are documents.

    A pair's probability is its object's share of the document's weight (`logs`, its log) times its own among the
    object's pairs: the expected number of pairs that a fact's probe asks is largest so. What has been asked is not
    asked of another object of its document.
    """
    candidates = []
    for place, pairs in ranked.items():
        whole = torch.tensor([pair.score for pair in pairs]).logsumexp(0).item()
        candidates += [(logs[place] + pair.score - whole, place, pair) for pair in pairs]
    candidates.sort(key=lambda candidate: -candidate[0])
    found: dict[Place, list[Pair]] = {place: [] for place in ranked}
    taken, wanted = set(), count * len({index for index, _ in ranked})
    for log, place, pair in candidates:
        if len(taken) == wanted or log == -math.inf:
            break
        if (place[0], *pair[1:]) not in taken:
            taken.add((place[0], *pair[1:]))
            found[place].append(pair._replace(score=log))
    return found
