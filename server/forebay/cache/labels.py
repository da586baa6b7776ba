"""What is decided for a candidate hit, and what is counted when it turns out to have been right or wrong.

A label says whether a request's own answer and the stored one were the same. Who answers a request anew anyway gets
its label for nothing: all near misses, and everything while the tier observes. A hit is regenerated in the shadow with
a probability that is fixed before anything is known of its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from forebay.cache.numbers import count
from forebay.values import value

Action = Literal["serve", "observe", "miss"]
"""`observe`: would have been served, once there is evidence enough."""

Kind = Literal["hit", "observed", "near_miss"]

KINDS: Mapping[Action, Kind] = {"serve": "hit", "observe": "observed", "miss": "near_miss"}
NUM_BANDS = 20


@value
class Ruling:
    """The decision on one candidate; kept until its label comes."""

    action: Action
    score: float
    """Calibrated chance that stored and own answer are the same, in [0, 1]."""
    labelled: bool
    """Its label is wanted: a hit is to be regenerated in the shadow, a miss's answer to be compared."""
    probability: float
    """With which `labelled` was drawn, in [0, 1]."""
    reference: float
    """The least probability that any candidate is labelled with at that time, in (0, 1]."""

    @property
    def weight(self) -> float:
        """Of its label in the evidence, so that every candidate counts alike however likely it was to be labelled."""
        return self.reference / self.probability


class Tally:
    """Labels of all times, by kind and outcome and by bands of the score: what operators read and fits start from."""

    __slots__ = ("bands", "counts")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {
            f"{kind}_{outcome}": 0 for kind in KINDS.values() for outcome in ("same", "wrong", "lost")
        }
        self.bands: list[list[int]] = [[0, 0] for _ in range(NUM_BANDS)]
        """Same and wrong labels by score, from 0 to 1."""

    def add(self, action: Action, score: float, same: bool | None) -> None:
        outcome = "lost" if same is None else "same" if same else "wrong"
        self.counts[f"{KINDS[action]}_{outcome}"] += 1
        if same is not None:
            self.bands[min(int(score * NUM_BANDS), NUM_BANDS - 1)][not same] += 1

    def export(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "bands": [list(band) for band in self.bands]}

    @classmethod
    def restore(cls, exported: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` did not write."""
        tally = cls()
        tally.counts = {name: count(exported["counts"][name]) for name in tally.counts}
        tally.bands = [[count(same), count(wrong)] for same, wrong in exported["bands"]]
        if len(tally.bands) != NUM_BANDS:
            raise ValueError("not the labels by score")
        return tally
