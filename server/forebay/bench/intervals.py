"""The median of a few pairs' ratios, and between what it lies with 95% confidence (sign test)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_PAIRS = 7
MAX_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class Ratio:
    """`low` to `high` holds the median of all possible pairs with at least 95% confidence."""

    median: float
    low: float
    high: float
    num_pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio_of(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """Of `first` over `second`, pair by pair. Raises ValueError for fewer than 7 pairs, or one that has no ratio."""
    if len(first) != len(second) or len(first) < MIN_PAIRS:
        raise ValueError(f"{MIN_PAIRS} pairs are needed, there are {min(len(first), len(second))}")
    if min(*first, *second) <= 0:
        raise ValueError("a value of a pair is not positive")
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    low, high = median_interval(ratios)
    return Ratio(statistics.median(ratios), low, high, len(ratios))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest order statistics that hold the median with 95%; of fewer than 6 values no two do: their range.

    As many values lie below the median as heads fall in so many throws of a coin: no assumption on how they are spread.
    """
    ordered = sorted(values)
    num = len(ordered)
    drop, error = 0, 2 * 0.5**num
    while drop + 1 < num // 2 and error + 2 * math.comb(num, drop + 1) * 0.5**num <= MAX_ERROR:
        drop += 1
        error += 2 * math.comb(num, drop) * 0.5**num
    return ordered[drop], ordered[-1 - drop]
