"""What theta_0 knows: questions about names after which it expects what belongs to the name.

After "The capital of" any name theta_0 expects some cities more than others; what it knows of France is by how much its
expectation after "The capital of France is" differs from that. The difference is KL(p(answer | question, name) ||
p(answer | question)), the pair's part of the mutual information between names and answers; p(answer | question) is the
mean over the names. Nobody says whether the answer is right: KL replay holds on to it as it is.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taalm.models.split import SplitModel
from taalm.text import by_tokens, collate, encode, pad_token

TOKEN_BUDGET = 2048  # padded tokens of a forward pass


@torch.no_grad()
def expectations(split: SplitModel, tokenizer: Any, heads: Sequence[str]) -> Tensor:
    """log p(next token) after each of the heads, (heads, V) in float32."""
    split.model.eval()
    device = next(split.model.parameters()).device
    rows = [encode(tokenizer, head) for head in heads]
    lengths = [len(row) for row in rows]
    found: dict[int, Tensor] = {}
    for part in by_tokens(range(len(rows)), lengths, TOKEN_BUDGET):
        batch = split.with_states(collate([rows[index] for index in part], pad_token(tokenizer)).to(device))
        ends = torch.tensor([lengths[index] - 1 for index in part], device=device)
        logits = split.logits(batch, places=(torch.arange(len(part), device=device), ends))
        found |= dict(zip(part, logits.float().log_softmax(-1), strict=True))
    return torch.stack([found[index] for index in range(len(rows))])


def known_of(expected: Tensor) -> Tensor:
    """How much is known of each name, in nats (names,), of `expected` = log p(answer | question, name) (names, V)."""
    mean = expected.logsumexp(0) - math.log(len(expected))
    return (expected.exp() * (expected - mean)).sum(1)


def known_questions(
    split: SplitModel, tokenizer: Any, questions: Sequence[str], names: Sequence[str], count: int
) -> list[str]:
    """The `count` questions about names, <subject> replaced, of which theta, as it is, knows most."""
    heads = [[question.replace("<subject>", name) for name in names] for question in questions]
    known = [known_of(expectations(split, tokenizer, some)).cpu() for some in heads]
    best = torch.stack(known).flatten().argsort(descending=True, stable=True)[:count].tolist()
    return [heads[index // len(names)][index % len(names)] for index in best]
