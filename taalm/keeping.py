"""How much of what an adapter learned counts: the largest share that keeps known facts which nothing else asks about.

A share of less than 1 interpolates between theta_0 and theta (taalm/scaling.py): theta learns less and forgets less.
Which share keeps enough differs from run to run, and the run itself can say it without a look at what is reported.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from jsonargparse.typing import ClosedUnitInterval

from taalm.config import SHIPPED
from taalm.errors import UserError
from taalm.facts import read_facts

STEPS = 20  # shares are multiples of 1 / STEPS
KNOWN = SHIPPED / "data" / "sample" / "known_facts.jsonl"  # common facts that the packaged model knows


@dataclass
class KeepConfig:
    """Known facts that choose the share of the adapter that counts."""

    share: ClosedUnitInterval = 0.0
    """Above 0 the adapter counts each epoch by the largest share, a multiple of .05, at which this much of what the
    model knew of --keep.facts is still right, in place of --scale."""
    facts: list[str] = field(default_factory=list)
    """Files of facts (jsonl); default common ones that the packaged model knows and, where the data folder has it, its
    tune_not_to_forget.jsonl. Facts about a subject that is asked or taught are left out, as are those that the model
    does not know."""


class Keeping:
    """The facts of --keep.facts about no subject `avoided`, once each, and the share at which enough of them is kept.

    Raises UserError where there are none.
    """

    def __init__(self, config: KeepConfig, avoided: Collection[str]):
        found = (fact for path in config.facts for fact in read_facts(path))
        self.facts = list({fact.content(): fact for fact in found if fact.subject not in avoided}.values())
        self.wanted, self.files = config.share, ", ".join(config.facts)
        self.known: list[int] = []  # places of those facts that theta_0 answers
        if not self.facts:
            raise UserError(f"--keep.facts {self.files}: all facts there are about subjects that are asked or taught")

    def share(self, answered: Callable[[float], Sequence[float]], start: float) -> float:
        """The largest share that keeps enough; `answered(share)` gives every fact's accuracy at a share.

        Raises UserError where theta_0 (share 0) answers none of the facts.
        """
        self.known = self.known or [place for place, accuracy in enumerate(answered(0)) if accuracy == 1]
        if not self.known:
            raise UserError(
                f"--keep.facts {self.files}: the model answers none of these {len(self.facts)} facts; name facts that "
                "it knows, or say with --scale how much the adapter counts and pass --keep.share 0"
            )

        def kept(share: float) -> float:
            accuracies = answered(share)
            return fmean(accuracies[place] for place in self.known)

        return largest_share(kept, self.wanted, start)


def largest_share(kept: Callable[[float], float], wanted: float, start: float = 1.0) -> float:
    """The largest share with kept(share) >= wanted, where `kept` falls with the share; 0 is taken to keep enough.

    It is looked for from `start` on in steps of 1 / STEPS: upwards while that keeps enough, else downwards.
    """

    def keeps(step: int) -> bool:
        return step == 0 or kept(step / STEPS) >= wanted

    step = round(start * STEPS)
    if keeps(step):
        while step < STEPS and keeps(step + 1):
            step += 1
    else:
        while not keeps(step):
            step -= 1
    return step / STEPS
