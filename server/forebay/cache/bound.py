"""An upper bound on an error rate that holds at every moment at once, however often it is looked at.

Labels come one at a time, each with a weight w in (0, 1] that is fixed before its outcome X (1: wrong) is known; the
chance mu = P(X = 1 | all before) may be another one each time. For every 0 <= rho < 1

    E[(1 - rho w)^X exp(rho w mu)] = (1 - rho w mu) exp(rho w mu) <= 1,

so the product over the labels is a non-negative supermartingale that begins at 1, and so is a mixture over several rho.
By Ville's inequality it ever reaches 1/alpha with a chance of at most alpha. Therefore, with a chance of at least
1 - alpha, at all times

    sum_j p_j (1 - rho_j w)^(wrong labels) exp(rho_j * sum(w mu)) < 1/alpha,

which bounds the weighted mean sum(w mu) / sum(w) from above. Nothing is assumed about how mu moves; what is bounded is
its mean over the labels so far. Without a wrong label the best that any such bound can do is -ln(alpha) / n.

This is the hedged betting of Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS B,
2023), with bets whose compensator is exponential, as in Howard, Ramdas, McAuliffe & Sekhon, "Time-uniform,
nonparametric, nonasymptotic confidence sequences" (Ann. Statist. 2021), so that a drifting chance is covered too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from forebay.cache.numbers import MOST, number

# A bet rho does best where the observed rate is 1 - rho of the bound. More weight lies on large ones: few errors.
BETS = (0.99, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2, 0.1, 0.05)
_LOG_PRIORS = tuple(map(math.log, (0.25, 0.17, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04, 0.02, 0.01)))
_PRECISION = 1e-6


class Evidence:
    """What labels say about an error rate: eleven numbers, however many labels. Adding two merges what they say."""

    __slots__ = ("_losses", "mass", "wrong_mass")

    def __init__(self) -> None:
        self.mass = 0.0
        """Sum of the labels' weights."""
        self.wrong_mass = 0.0
        """The part of it on wrong labels."""
        self._losses = [0.0] * len(BETS)

    def add(self, weight: float, *, wrong: bool) -> None:
        """A label of `weight` in (0, 1], which was chosen before its outcome was known."""
        self.mass += weight
        if wrong:
            self.add_wrong(weight)

    def add_wrong(self, weight: float) -> None:
        """The outcome of a label whose mass is counted elsewhere."""
        self.wrong_mass += weight
        for position, bet in enumerate(BETS):
            self._losses[position] += math.log1p(-bet * weight)

    @property
    def rate(self) -> float:
        """The weighted share of wrong labels; 0 without any."""
        return self.wrong_mass / self.mass if self.mass else 0.0

    def excludes(self, rate: float, alpha: float) -> bool:
        """Whether the mean chance of an error is below `rate`, at an error level of `alpha` over all times."""
        return self._log_capital(rate) >= -math.log(alpha)

    def upper(self, alpha: float) -> float:
        """The least rate that is excluded, in [0, 1]; 1 without labels."""
        if not self.excludes(1.0, alpha):
            return 1.0
        low, high = self.rate, 1.0
        while high - low > _PRECISION * high:
            middle = (low + high) / 2
            low, high = (low, middle) if self.excludes(middle, alpha) else (middle, high)
        return high

    def merge(self, other: Evidence) -> None:
        """Take in what labels of another server say."""
        self.mass += other.mass
        self.wrong_mass += other.wrong_mass
        self._losses = [mine + theirs for mine, theirs in zip(self._losses, other._losses, strict=True)]

    def export(self) -> dict[str, Any]:
        return {"mass": self.mass, "wrong_mass": self.wrong_mass, "losses": list(self._losses)}

    @classmethod
    def restore(cls, exported: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` did not write."""
        evidence = cls()
        evidence.mass, evidence.wrong_mass = number(exported["mass"]), number(exported["wrong_mass"])
        losses = [number(loss, least=-MOST, most=0.0) for loss in exported["losses"]]
        if len(losses) != len(BETS) or evidence.wrong_mass > evidence.mass:
            raise ValueError("not the evidence of labels")
        evidence._losses = losses
        return evidence

    def _log_capital(self, rate: float) -> float:
        """Logarithm of what the bets against `rate` have made of 1."""
        terms = [
            prior + loss + bet * self.mass * rate
            for prior, loss, bet in zip(_LOG_PRIORS, self._losses, BETS, strict=True)
        ]
        most = max(terms)
        return most + math.log(sum(math.exp(term - most) for term in terms))


def clean_labels_needed(rate: float, alpha: float) -> int:
    """How many labels without an error exclude `rate`."""
    low, high = 0, 1
    evidence = Evidence()
    while True:
        evidence.mass = float(high)
        if evidence.excludes(rate, alpha):
            break
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        evidence.mass = float(middle)
        low, high = (low, middle) if evidence.excludes(rate, alpha) else (middle, high)
    return high
