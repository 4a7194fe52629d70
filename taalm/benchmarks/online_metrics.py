"""The online stream's numbers, from how many facts of a date are answered after which date's training.

`right[s][p]` is how many facts of date p the model answers after it learned date s (s = -1: before the stream); only
p = s - 1, s and s + 1 are asked. `asked[p]` is how many there are; a date without facts has no accuracy and is left out
of every mean.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


def normalised(text: str) -> str:
    """Lower case, no punctuation, no English articles, single spaces: what exact match compares.

    A text of nothing else (the grade "A", "!!!") keeps its articles, or its punctuation.
    """
    low = " ".join(text.lower().split())
    words = " ".join("".join(" " if character in string.punctuation else character for character in low).split())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", words).split()) or words or low


def exact_match(said: str, wanted: Iterable[str]) -> bool:
    """Whether `said` is one of `wanted`, normalised; nothing said is no answer."""
    return bool(said.strip()) and normalised(said) in {normalised(name) for name in wanted}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there, or None."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def fuar(forgotten: Sequence[float], gained: Sequence[float]) -> float | None:
    """Forgotten / (updated + acquired) ratio (CKL, section 4.2): lower is better; None where nothing was gained.

    `forgotten` are scores before minus after on what should stay, `gained` after minus before on what is new; a
    negative one counts as 0.
    """
    gain = sum(max(0.0, value) for value in gained)
    return sum(max(0.0, value) for value in forgotten) / gain if gain > 0 else None


@dataclass(frozen=True)
class StreamScores:
    """Everything that was asked along a stream of `len(asked)` dates."""

    right: Mapping[int, Mapping[int, int]]
    asked: Sequence[int]

    def accuracy(self, after: int, date: int) -> float | None:
        """EM of a date's facts after learning date `after`; None where it was not asked or has no facts."""
        answered = self.right.get(after, {}).get(date)
        return None if answered is None or not self.asked[date] else answered / self.asked[date]

    def _difference(self, one: tuple[int, int], other: tuple[int, int]) -> float | None:
        now, before = self.accuracy(*one), self.accuracy(*other)
        return None if now is None or before is None else now - before

    def em(self, t: int) -> float | None:
        """EM_t(t)."""
        return self.accuracy(t, t)

    def bwt(self, t: int) -> float | None:
        """EM_t(t-1) - EM_{t-1}(t-1): what learning date t does to the date before."""
        return self._difference((t, t - 1), (t - 1, t - 1)) if t > 0 else None

    def fwt(self, t: int) -> float | None:
        """EM_t(t) - EM_{t-1}(t): what learning date t adds to its own facts."""
        return self._difference((t, t), (t - 1, t))

    def known(self, t: int) -> int:
        """Facts of dates 0..t that the model answers, each date by the last time it was asked until t."""
        total = 0
        for date in range(t + 1):
            times = range(min(t, date + 1), date - 2, -1)  # a date is asked after its neighbours and itself
            found = (self.right[after][date] for after in times if date in self.right.get(after, {}))
            total += next(found, 0)
        return total

    def gap(self, t: int) -> float | None:
        """(world_t - known_t) / world_t, world_t being all facts until t; None before date t was learned."""
        world = sum(self.asked[: t + 1])
        return (world - self.known(t)) / world if world and t in self.right else None

    def knowledge_gap(self) -> float | None:
        """KG, the mean of the gaps."""
        return mean([self.gap(t) for t in range(len(self.asked))])

    def summary(self, tokens: int, seconds: float) -> dict[str, float | None]:
        """EM, BWT, FWT (means over dates), KG, KAR and FUAR.

        KAR (knowledge acquisition rate) = (mean FWT - mean forgetting) * tokens / training seconds, forgetting = -BWT.
        """
        dates = range(len(self.asked))
        bwt, fwt = [self.bwt(t) for t in dates], [self.fwt(t) for t in dates]
        gained, kept = mean(fwt), mean(bwt)
        rate = None if gained is None or seconds <= 0 else (gained + (kept or 0.0)) * tokens / seconds
        return {
            "em": mean([self.em(t) for t in dates]),
            "bwt": kept,
            "fwt": gained,
            "kg": self.knowledge_gap(),
            "kar": rate,
            "fuar": fuar([-value for value in bwt if value is not None], [value for value in fwt if value is not None]),
        }
