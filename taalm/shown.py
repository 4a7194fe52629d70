"""What facts with their documents show of theta_0: its states half-way up, for the probes that learn from them."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from taalm.errors import UserError
from taalm.facts import Fact, read_facts
from taalm.models.split import SplitModel
from taalm.text import Encoded, by_tokens, collate, encode, pad_token

LONGEST = 512  # tokens of a document that are read
TOKEN_BUDGET = 2048  # padded tokens of a forward pass


class Shown(NamedTuple):
    """Facts, their documents' tokens with the objects marked, and theta_0's states there, (T - 1, H) each."""

    facts: Sequence[Fact]
    rows: Sequence[Encoded]
    states: Sequence[Tensor]


@torch.no_grad()
def middle_states(split: SplitModel, rows: Sequence[Encoded], pad_id: int) -> list[Tensor]:
    """What enters the middle layer at each document's tokens, BOS left out: (T - 1, H) each, float32 on the CPU."""
    split.model.eval()
    device, lengths = next(split.model.parameters()).device, [len(row) for row in rows]
    found: dict[int, Tensor] = {}
    for part in by_tokens(range(len(rows)), lengths, TOKEN_BUDGET):
        batch = collate([rows[index] for index in part], pad_id).to(device)
        states = split.entering(batch, len(split.layers) // 2).float().cpu()
        found |= {index: states[place, 1 : lengths[index]].clone() for place, index in enumerate(part)}
    return [found[index] for index in range(len(rows))]


def show(split: SplitModel, tokenizer: Any, facts: Sequence[Fact]) -> Shown:
    """The facts as theta_0, `split`, reads them."""
    rows = [encode(tokenizer, fact.evidence, fact.object_span(), LONGEST) for fact in facts]
    return Shown(facts, rows, middle_states(split, rows, pad_token(tokenizer)))


def check_shown(facts: Sequence[Fact], flag: str, held: Collection[str], subjects: Collection[str]) -> None:
    """Raises UserError where a fact's document is evaluated (`held`), or its subject is (`subjects`)."""
    leaking = next((fact for fact in facts if fact.evidence in held or fact.subject in subjects), None)
    if leaking:
        raise UserError(
            f"{leaking.where}: --{flag} shows what is asked, and this fact's document or subject is evaluated"
        )


def read_shown(
    path: str, flag: str, split: SplitModel, tokenizer: Any, held: Collection[str] = (), subjects: Collection[str] = ()
) -> Shown:
    """The facts of a file, named by `flag`, as theta_0 reads them. Raises UserError, as check_shown does too."""
    facts = read_facts(path)
    check_shown(facts, flag, held, subjects)
    return show(split, tokenizer, facts)
