"""Which questions fit an object: those after which theta_0 expects it more than other objects.

An association learned as "Leon Breeden: jazz" is hardly said after "Leon Breeden plays" (docs/experiments.md, 20), so
a view is a question about the name, and theta_0 picks the questions: after "... works in the field of" it expects
"geology" and not "BBC". Nothing about the facts is asked for: names and objects are the document's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from taalm.models.split import SplitModel
from taalm.text import by_tokens, collate, encode, pad_token

TOKEN_BUDGET = 1024  # padded tokens of a forward pass


@torch.no_grad()
def expectations(split: SplitModel, tokenizer: Any, questions: Sequence[str], names: Sequence[str]) -> Tensor:
    """log p(next token) after each question, (questions, V): the mean over `names` in place of <subject>."""
    split.model.eval()
    device = next(split.model.parameters()).device
    rows = [encode(tokenizer, question.replace("<subject>", name)) for question in questions for name in names]
    lengths = [len(row) for row in rows]
    found: dict[int, Tensor] = {}
    for part in by_tokens(range(len(rows)), lengths, TOKEN_BUDGET):
        batch = split.with_states(collate([rows[index] for index in part], pad_token(tokenizer)).to(device))
        ends = torch.tensor([lengths[index] - 1 for index in part], device=device)
        logits = split.logits(batch, places=(torch.arange(len(part), device=device), ends))
        found |= dict(zip(part, logits.float().log_softmax(-1).cpu(), strict=True))
    each = torch.stack([found[index] for index in range(len(rows))])
    return each.view(len(questions), len(names), -1).mean(1)


def likely_questions(
    split: SplitModel, tokenizer: Any, questions: Sequence[str], names: Sequence[str], objects: Sequence[str],
    count: int,
) -> dict[str, list[str]]:  # fmt: skip
    """For each of the objects the `count` questions that theta, as it is, expects it after the most.

    What counts is the likelihood of its first token beside that of the other objects: all are unlikely after "plays",
    but "jazz" less so than "politician".
    """
    answers = list(dict.fromkeys(objects))
    first = [tokenizer(f" {answer}", add_special_tokens=False).input_ids[0] for answer in answers]
    expected = expectations(split, tokenizer, questions, names)[:, first]
    if len(answers) > 1:
        expected = expected - expected.mean(1, keepdim=True)
    best = expected.topk(min(count, len(questions)), dim=0).indices
    return {answer: [questions[index] for index in best[:, column]] for column, answer in enumerate(answers)}
