"""Each random half of the facts learned alone, asked about both: what read knowledge is measured on (DESIGN 5)."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from taalm.benchmarks import lama_ckl
from taalm.errors import UserError
from taalm.facts import Fact

ByShare = Mapping[float, dict]  # by the share of the adapter that counts, an entry of a history


class Half(NamedTuple):
    """The ids of the facts that were learned, the history of that, and what the final model answers by share."""

    facts: list[str]
    history: dict[int, dict]
    by_share: ByShare

    def result(self) -> dict:
        return {"facts": self.facts, "eval_result": self.history}


def halves(facts: Sequence[Fact], seed: int) -> list[list[Fact]]:
    """The facts in two random halves; facts that share a document stay together."""
    documents = sorted({fact.evidence for fact in facts})
    if len(documents) < 2:
        raise UserError("--swap_halves needs facts of at least two documents")
    random.Random(seed).shuffle(documents)
    first = set(documents[: len(documents) // 2])
    return [[f for f in facts if f.evidence in first], [f for f in facts if f.evidence not in first]]


def learn_halves(
    facts: Sequence[Fact], seed: int, learn: Callable[[int, list[Fact]], tuple[dict[int, dict], ByShare]]
) -> list[Half]:
    """Both halves, each learned by `learn` (its number, its facts), which returns its history and answers by share."""
    found = []
    for number, part in enumerate(halves(facts, seed)):
        print(f"half {number + 1}: adapting to {len(part)} of {len(facts)} facts")
        found.append(Half([fact.uuid for fact in part], *learn(number, part)))
    return found


def scaled_totals(whole: ByShare, parts: Sequence[Half]) -> dict[str, dict[str, float | None]]:
    """By share the accuracies of the whole run and their Total; with halves their read knowledge too."""
    found = {}
    for share, entry in whole.items():
        learned, known = entry["acc_changed"], entry["acc_unchanged"]
        found[str(share)] = {"acc_changed": learned, "acc_unchanged": known, "total": learned + known}
        if parts:
            answered = [half.result() | {"eval_result": {0: half.by_share[share]}} for half in parts]
            found[str(share)] |= lama_ckl.read_knowledge(answered)
    return found
