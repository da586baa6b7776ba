"""Scores from which on hits might be served, each with the evidence on the errors at or above it.

Several are tested on the same labels, so the error level alpha is shared out. By the fallback procedure (Wiens &
Dmitrienko, "The fallback procedure for evaluating a single family of hypotheses", J. Biopharm. Stat. 2005) each cut,
the strictest first, gets an equal share and, if the one before it is proven good, that one's level too. The cuts
themselves are set by scores alone, before any label counts, so they know nothing of outcomes.

After a rise of errors a cut begins a new era: its evidence starts from nothing. Era e has the part `_part(e)` of alpha,
and the parts of all eras are 1 together; levels are passed on within an era only. So the chance that any bad cut is
ever taken for good stays at most alpha, over all cuts, eras and times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from forebay.cache.bound import Evidence
from forebay.cache.drift import hit_detector
from forebay.cache.numbers import count, number

# Shares of the candidates that are at or above each cut.
KEPT = (0.15, 0.3, 0.45, 0.6, 0.8)
# So many errors are allowed among the labels of an era before it may be given up.
_HOPELESS = 8.0


class Cut:
    """One score and what labels say of the candidates at or above it, since the last rise of their errors."""

    __slots__ = ("detector", "era", "evidence", "num_candidates", "score")

    def __init__(self, score: float) -> None:
        self.score = score
        self.evidence = Evidence()
        self.detector = hit_detector()
        self.num_candidates = 0
        self.era = 1

    def begin_era(self) -> None:
        """What was learnt before says nothing of the errors any more."""
        self.era += 1
        self.evidence, self.detector = Evidence(), hit_detector()

    def export(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "num_candidates": self.num_candidates,
            "era": self.era,
            "rise": self.detector.level,
            "evidence": self.evidence.export(),
        }

    @classmethod
    def restore(cls, exported: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` did not write."""
        cut = cls(number(exported["score"], most=1.0))
        cut.num_candidates, cut.era = count(exported["num_candidates"]), count(exported["era"], least=1)
        cut.detector.level = number(exported["rise"])
        cut.evidence = Evidence.restore(exported["evidence"])
        return cut


class Cuts:
    """The cuts of one kind of score, the strictest first, and which of them labels prove good."""

    __slots__ = ("_all",)

    def __init__(self, scores: Sequence[float]) -> None:
        """Cuts that keep `KEPT` of these scores; fewer where scores coincide."""
        ordered = sorted(scores, reverse=True)
        chosen = {ordered[math.ceil(kept * len(ordered)) - 1] for kept in KEPT} if ordered else set()
        self._all = [Cut(score) for score in sorted(chosen, reverse=True)]

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, at: int) -> Cut:
        return self._all[at]

    def __iter__(self) -> Iterator[Cut]:
        return iter(self._all)

    def seen(self, score: float) -> None:
        """A candidate that scored so."""
        for cut in self._all:
            cut.num_candidates += score >= cut.score

    def learn(self, score: float, weight: float, allowed: float, *, wrong: bool) -> int:
        """A label, while `allowed` is the rate of wrong ones that may be. Returns how many cuts are too strict for it.

        `weight`: the least probability with which any candidate was labelled then, over that of this one; so every
        candidate counts alike.
        """
        band = 0
        for cut in self._all:
            if score >= cut.score:
                cut.evidence.add(weight, wrong=wrong)
                cut.detector.add(weight, allowed, wrong=wrong)
            else:
                band += 1
        return band

    def forget(self, first: int) -> None:
        """After a rise of errors at this cut: it and looser ones begin anew."""
        for cut in self._all[first:]:
            cut.begin_era()

    def renew(self, allowed: float) -> None:
        """Cuts whose errors are too many begin anew, so that they can be proven soon after things turn good."""
        for cut in self._all:
            if cut.evidence.rate >= allowed and cut.evidence.mass * allowed >= _HOPELESS:
                cut.begin_era()

    def levels(self, allowed: float, alpha: float) -> list[tuple[float, bool]]:
        """For each cut the error level at which it is tested, and whether it is proven good at that level."""
        tested: list[tuple[float, bool]] = []
        passed_on, era = 0.0, 0
        for cut in self._all:
            level = alpha * _part(cut.era) / len(self._all) + (passed_on if cut.era == era else 0.0)
            good = cut.evidence.excludes(allowed, level)
            tested.append((level, good))
            passed_on, era = (level if good else 0.0), cut.era
        return tested

    def loosest_good(self, allowed: float, alpha: float) -> int | None:
        """The loosest cut that is proven good and shows no rise."""
        tested = self.levels(allowed, alpha)
        good = [at for at, (_, good) in enumerate(tested) if good and not self._all[at].detector.alarmed]
        return good[-1] if good else None

    def loosest_plausible(self, allowed: float) -> int:
        """The loosest cut that may well come to be proven; the strictest if none looks so."""
        plausible = [
            at
            for at, cut in enumerate(self._all)
            if cut.evidence.rate <= allowed / 2 and cut.evidence.mass * allowed >= 1
        ]
        return plausible[-1] if plausible else 0

    def export(self) -> list[dict[str, Any]]:
        return [cut.export() for cut in self._all]

    @classmethod
    def restore(cls, exported: Sequence[Mapping[str, Any]]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` did not write."""
        cuts = cls(())
        cuts._all = [Cut.restore(cut) for cut in exported]
        scores = [cut.score for cut in cuts]
        if scores != sorted(set(scores), reverse=True):
            raise ValueError("not the cuts of a score")
        return cuts


def first_level(alpha: float) -> float:
    """At which the strictest of all cuts is tested at first."""
    return alpha * _part(1) / len(KEPT)


def _part(era: int) -> float:
    """Of alpha: three quarters for the first era, 1/4 * 1/2, 1/4 * 1/6, 1/4 * 1/12 ... for the next."""
    return 0.75 if era == 1 else 0.25 / ((era - 1) * era)
