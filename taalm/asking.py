"""What a document will be asked: which question about which of its names, if a span of it is the answer.

TA-train shows it: each of its facts has a document, an object there and a probe. Two linear probes (Alain and Bengio
2017) read theta_0's states half-way up and say a question each: the object's probe which question the object answers
("jazz" and "plays"), the names' probe which question a name is asked, or none ("Leon Breeden" and "plays"). Both
together rank the pairs of a name and a question. They learn from TA-train alone, as phi does.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from taalm.errors import UserError
from taalm.facts import Fact
from taalm.models.split import SplitModel
from taalm.names import names_apart
from taalm.text import Encoded, Span, by_tokens, collate, encode, offsets, pad_token

LONGEST = 512  # tokens of a TA-train document that are read
TOKEN_BUDGET = 2048  # padded tokens of a forward pass
STEPS = 150  # of L-BFGS
OBJECT_DECAY, NAME_DECAY = 3e-4, 1e-4  # of the probes' weights
UNASKED = 0.02  # what a name weighs that is no subject; one that is weighs 1 / its question's facts


class Pair(NamedTuple):
    """A question with <subject> in it about a name of a document, and its log-likelihood, up to a constant."""

    score: float
    name: str
    question: str


class LinearProbe:
    """Multinomial logistic regression on standardised features: features (N, D), classes (N,), weights (N,)."""

    def __init__(self, features: Tensor, classes: Tensor, weights: Tensor, count: int, decay: float):
        self.mean = features.mean(0)
        self.scale = (features.std(0, correction=0) + 1e-6) * features.shape[1] ** 0.5
        self.matrix = torch.zeros(features.shape[1], count, requires_grad=True)
        self.bias = torch.zeros(count, requires_grad=True)
        standardised = self._standardised(features)
        optimizer = torch.optim.LBFGS([self.matrix, self.bias], max_iter=STEPS, line_search_fn="strong_wolfe")
        weights = weights / weights.sum()

        def loss() -> Tensor:
            optimizer.zero_grad()
            losses = F.cross_entropy(standardised @ self.matrix + self.bias, classes, reduction="none")
            total = (losses * weights).sum() + decay * self.matrix.square().sum()
            total.backward()
            return total

        optimizer.step(loss)

    def _standardised(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Log-probabilities of the classes, (N, count)."""
        return (self._standardised(features) @ self.matrix + self.bias).log_softmax(-1)


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


def question_of(fact: Fact) -> str | None:
    """A fact's descriptive probe up to its object, <subject> for its subject; None if it is named after the object."""
    head = fact.task_descriptive[: fact.answer_span("descriptive")[0]].rstrip()
    return head.replace(fact.subject, "<subject>") if fact.subject in head else None


class Asker:
    """Ranks the questions about a document's names, having seen what the facts of TA-train are asked.

    Raises UserError where no fact has a question.
    """

    def __init__(self, split: SplitModel, tokenizer: Any, facts: Sequence[Fact]):
        taught = [(fact, question) for fact in facts if (question := question_of(fact))]
        self.questions = sorted({question for _, question in taught})
        texts = [fact.evidence for fact, _ in taught]
        rows = [encode(tokenizer, text, max_length=LONGEST) for text in texts]
        read = self._read(split, tokenizer, texts, rows, [fact.object_span() for fact, _ in taught])
        known = [
            (one, fact, self.questions.index(question))
            for one, (fact, question) in zip(read, taught, strict=True)
            if one is not None
        ]
        if not known:
            raise UserError(
                "--views.asked: no fact of --views.questions has a probe that names its subject before its object, and "
                f"its object among the first {LONGEST} tokens of its document"
            )
        count = len(self.questions)
        asked = torch.tensor([question for _, _, question in known])
        share = 1 / asked.bincount(minlength=count).clamp_min(1)  # every question weighs the same
        self.object = LinearProbe(
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
            self.names = LinearProbe(*examples, count + 1, NAME_DECAY)

    def pairs(
        self, split: SplitModel, tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], spans: Sequence[Span]
    ) -> list[list[Pair]]:
        """For each document and object the pairs, the likeliest first; `split` is theta_0, as it was taught with."""
        return [self._ranked(one) for one in self._read(split, tokenizer, texts, rows, spans)]

    @staticmethod
    @torch.no_grad()
    def _read(
        split: SplitModel, tokenizer: Any, texts: Sequence[str], rows: Sequence[Encoded], spans: Sequence[Span]
    ) -> list[_Read | None]:
        """What the probes see of each document, by what enters the middle layer, in float32 on the CPU."""
        split.model.eval()
        device, lengths = next(split.model.parameters()).device, [len(row) for row in rows]
        found: dict[int, _Read | None] = {}
        for part in by_tokens(range(len(rows)), lengths, TOKEN_BUDGET):
            batch = collate([rows[index] for index in part], pad_token(tokenizer)).to(device)
            states = split.entering(batch, len(split.layers) // 2).float().cpu()
            for place, index in enumerate(part):
                places, own = offsets(tokenizer, texts[index], rows[index]), states[place, 1 : lengths[index]]  # no BOS
                found[index] = _read(texts[index], places, own, spans[index])
        return [found[index] for index in range(len(rows))]

    def _ranked(self, read: _Read | None) -> list[Pair]:
        if read is None or not read.names or self.names is None:
            return []
        scores = self.object(read.object[None]) + self.names(read.features)[:, :-1]
        best: dict[tuple[str, str], float] = {}  # a name that occurs twice counts where it is likelier
        for name, row in zip(read.names, scores.tolist(), strict=True):
            for question, score in zip(self.questions, row, strict=True):
                best[name, question] = max(score, best.get((name, question), score))
        return sorted((Pair(score, *pair) for pair, score in best.items()), key=lambda pair: (-pair.score, pair[1:]))
