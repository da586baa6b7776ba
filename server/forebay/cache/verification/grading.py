"""What a model's word is worth, from how often it was right on pairs whose truth is known.

Its probability is not believed as it stands: models are sure of themselves by habit. It sorts a pair into one of three
bands whose limits are fixed beforehand, and for each band the check set has counted how many pairs with one answer
came there and how many without. The ratio of the two shares, each at its confidence bound, multiplies the odds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Band = Literal["yes", "leaning", "no"]
"""`yes`: at least 90% of the two words' probability is on yes; `leaning`: more than half."""

SURE = math.log(9.0)
MISSED = 0.025
"""Chance that a bound does not hold; two make a ratio, which then holds in 95% of cases."""

LEAST_RATIO, LEAST_FOUND = 10.0, 0.5
"""What a model must reach: how much more often it is sure of pairs with one answer than of the others, at least; and
of how large a share of them it is."""


def band_of(score: float) -> Band:
    """`score`: log of the odds of yes against no."""
    if score >= SURE:
        return "yes"
    return "leaning" if score > 0 else "no"


@dataclass(frozen=True, slots=True)
class Counts:
    """Pairs of one kind by the band that they came into."""

    yes: int = 0
    leaning: int = 0
    no: int = 0

    @property
    def total(self) -> int:
        return self.yes + self.leaning + self.no

    @classmethod
    def of(cls, scores: Sequence[float]) -> Counts:
        bands = [band_of(score) for score in scores]
        return cls(bands.count("yes"), bands.count("leaning"), bands.count("no"))


@dataclass(frozen=True, slots=True)
class Grade:
    """Of one model and one question that it is asked."""

    same: Counts
    different: Counts

    def ratio(self, band: Band) -> float:
        """At least so much more often, at 95%, does a pair with one answer come into the band than one without. A
        weaker word never counts for more than a stronger one, and a no never speaks for a pair."""
        yes = self._ratio(self.same.yes, self.different.yes)
        if band == "yes":
            return yes
        leaning = min(yes, self._ratio(self.same.leaning, self.different.leaning))
        return leaning if band == "leaning" else min(1.0, leaning, self._ratio(self.same.no, self.different.no))

    def chance(self, score: float) -> float:
        """That the pair has one answer, where half of all pairs have; in [0, 1)."""
        ratio = self.ratio(band_of(score))
        return ratio / (1.0 + ratio)

    @property
    def best_chance(self) -> float:
        """The most that `chance` ever says."""
        return self.chance(SURE)

    @property
    def passed(self) -> bool:
        return self.ratio("yes") >= LEAST_RATIO and self.same.yes >= LEAST_FOUND * self.same.total

    @property
    def false_alarm(self) -> float:
        """Share of answers that are the same and are called different, at its lower bound."""
        return lower_bound(self.same.no, self.same.total)

    @property
    def miss(self) -> float:
        """Share of answers that differ and are called the same, at its upper bound."""
        return upper_bound(self.different.total - self.different.no, self.different.total)

    def _ratio(self, num_same: int, num_different: int) -> float:
        return lower_bound(num_same, self.same.total) / upper_bound(num_different, self.different.total)


def can_pass(same: Counts, different: Counts, num_pairs: int) -> bool:
    """Whether a model may still pass once it was asked about `num_pairs` of each kind.

    False where it would fail even if it were right about all the rest, and where what is known makes it as good as
    certain: its shares, at their bounds, are none that pass. So one that always says the same is found out soon.
    """
    best = Counts(same.yes + num_pairs - same.total, same.leaning, same.no)
    others = Counts(different.yes, different.leaning, different.no + num_pairs - different.total)
    return (
        upper_bound(same.yes, same.total) >= LEAST_FOUND
        and lower_bound(different.yes, different.total) <= 1.0 / LEAST_RATIO
        and Grade(best, others).passed
    )


@lru_cache(maxsize=4096)
def upper_bound(num: int, total: int) -> float:
    """Of a share of which `num` of `total` were seen (Clopper and Pearson 1934, one-sided)."""
    if num >= total:
        return 1.0
    ways = [math.comb(total, k) for k in range(num + 1)]
    least, most = num / total, 1.0
    for _ in range(40):
        share = (least + most) / 2
        at_most = math.fsum(way * share**k * (1.0 - share) ** (total - k) for k, way in enumerate(ways))
        least, most = (share, most) if at_most > MISSED else (least, share)
    return most


def lower_bound(num: int, total: int) -> float:
    return 1.0 - upper_bound(total - num, total)
