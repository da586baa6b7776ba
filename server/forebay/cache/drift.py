"""Tells soon that an error rate has risen above what is allowed, whenever that began.

With a label of weight w whose chance of an error is at most `allowed`, `(1 + t w)^X exp(-t w allowed)` is at most 1 on
average for any t > 0. The product of these factors, begun anew whenever it falls below 1, is an e-detector: as long as
no label's chance of an error exceeds what is allowed, the mean number of labels until it reaches c is at least c,
whatever else moves (Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework for sequential change detection",
NEJSDS 2024; Page's CUSUM is its ancestor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from forebay.cache.numbers import count, number

# Near misses may be a quarter more often wrong than they were before that counts as unusual.
_SLACK = 1.25


class RiseDetector:
    """Page's statistic on a logarithmic scale; 0: no sign of a rise. It ends at the alarm, to come down again."""

    __slots__ = ("_alarm", "_suspicion", "_tilt", "level")

    def __init__(self, tilt: float, suspicion: float, alarm: float) -> None:
        """Best at finding a rate of 1 + `tilt` times what is allowed. The others are values of the statistic."""
        self._tilt = tilt
        self._suspicion, self._alarm = math.log(suspicion), math.log(alarm)
        self.level = 0.0

    def add(self, weight: float, allowed: float, *, wrong: bool) -> None:
        gain = math.log1p(self._tilt * weight) if wrong else 0.0
        self.level = min(self._alarm, max(0.0, self.level + gain - self._tilt * weight * allowed))

    @property
    def alarmed(self) -> bool:
        return self.level >= self._alarm

    @property
    def suspicious(self) -> bool:
        return self.level >= self._suspicion


def hit_detector() -> RiseDetector:
    """Labels of hits are few: one wrong label is reason to look closer, four in short order are enough."""
    return RiseDetector(tilt=3.0, suspicion=2.0, alarm=100.0)


class NearMisses:
    """Warns of hits by what is learnt of the candidates below them, whose labels cost nothing and are many.

    Near misses of about one score should be wrong as often as they were. That hits are wrong more often when near
    misses are is likely, not sure; the warning only ever makes the tier more careful, so no claim rests on it.
    """

    __slots__ = ("_counts", "detector")

    def __init__(self, num_bands: int) -> None:
        """Scores come in bands, from 0 for the highest on."""
        self._counts = [[0, 0] for _ in range(num_bands)]
        self.detector = RiseDetector(tilt=1.0, suspicion=10.0, alarm=1000.0)

    def add(self, band: int, *, wrong: bool, watched: bool) -> None:
        """A label of a candidate. `watched`: it was a near miss, while hits are served."""
        counts = self._counts[band]
        if watched:
            usual = min(1.0, _SLACK * (counts[1] + 2) / (counts[0] + 4))
            self.detector.add(1.0, usual, wrong=wrong)
        counts[0] += 1
        counts[1] += wrong

    def export(self) -> dict[str, Any]:
        return {"counts": [list(counts) for counts in self._counts], "rise": self.detector.level}

    @classmethod
    def restore(cls, exported: Mapping[str, Any], num_bands: int) -> Self:
        """Raises KeyError, TypeError or ValueError for what `export` of so many bands did not write."""
        near = cls(num_bands)
        near._counts = [[count(num_labels), count(num_wrong)] for num_labels, num_wrong in exported["counts"]]
        if len(near._counts) != num_bands or any(wrong > labels for labels, wrong in near._counts):
            raise ValueError("not the labels of these cuts")
        near.detector.level = number(exported["rise"])
        return near
