"""Scores from which on hits might be served, each with the evidence on the errors at or above it.

Several are tested on the same labels, so the error level alpha is shared out. By the fallback procedure (Wiens &
Dmitrienko, "The fallback procedure for evaluating a single family of hypotheses", J. Biopharm. Stat. 2005) each cut,
the strictest first, gets an equal share and, if the one before it is proven good, that one's level too. The chance that
any bad cut is ever taken for good stays at most alpha. The cuts themselves are set by scores alone, before any label
counts, so they know nothing of outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from forebay.cache.bound import Evidence
from forebay.cache.drift import hit_detector

# Shares of the candidates that are at or above each cut.
KEPT = (0.15, 0.3, 0.45, 0.6, 0.8)


class Cut:
    """One score and what labels say of the candidates at or above it, since the last rise of their errors."""

    __slots__ = ("detector", "evidence", "num_candidates", "score")

    def __init__(self, score: float) -> None:
        self.score = score
        self.evidence = Evidence()
        self.detector = hit_detector()
        self.num_candidates = 0

    def export(self) -> dict[str, Any]:
        return {
            "score": self.score,
            "num_candidates": self.num_candidates,
            "rise": self.detector.level,
            "evidence": self.evidence.export(),
        }

    @classmethod
    def restore(cls, exported: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` did not write."""
        cut = cls(float(exported["score"]))
        cut.num_candidates = int(exported["num_candidates"])
        cut.detector.level = float(exported["rise"])
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
        """What was learnt before a rise of errors says nothing about this cut and looser ones any more."""
        for cut in self._all[first:]:
            cut.evidence, cut.detector = Evidence(), hit_detector()

    def levels(self, allowed: float, alpha: float) -> list[tuple[float, bool]]:
        """For each cut the error level at which it is tested, and whether it is proven good at that level."""
        tested: list[tuple[float, bool]] = []
        passed_on = 0.0
        for cut in self._all:
            level = alpha / len(self._all) + passed_on
            good = cut.evidence.excludes(allowed, level)
            tested.append((level, good))
            passed_on = level if good else 0.0
        return tested

    def loosest_good(self, allowed: float, alpha: float) -> int | None:
        """The loosest cut that is proven good and shows no rise."""
        tested = self.levels(allowed, alpha)
        good = [at for at, (_, good) in enumerate(tested) if good and not self._all[at].detector.alarmed]
        return good[-1] if good else None

    def loosest_plausible(self, allowed: float) -> int:
        """The loosest cut that may well come to be proven; the strictest if none looks so."""
        plausible = [at for at, cut in enumerate(self._all) if cut.evidence.rate <= allowed / 2]
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
