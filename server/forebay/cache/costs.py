"""Whether looking up pays: what look-ups cost against the generation that hits save.

A look-up is made for every request and saves the engine's time for those that hit, so it pays above the break-even hit
rate: time of a look-up / time that a hit saves. Below it the tier is off, and tries again now and then, for longer
pauses each time it fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_LONGEST_WINDOW = 100_000


@dataclass(frozen=True, slots=True)
class CostRule:
    """Counts are look-ups. Raises ValueError for values out of range."""

    span: int = 500
    """Over how many recent ones times are averaged, and the hit rate too unless break-even is so low that it takes more
    to tell; as many are made before anything is decided."""
    pause: int = 2_000
    """How many are left out before the next trial; doubled after each trial that fails."""
    longest_pause: int = 64_000
    sureness: float = 2.0
    """By how many standard errors the hit rate must lie below break-even."""

    def __post_init__(self) -> None:
        if not (self.span > 1 and 0 < self.pause <= self.longest_pause and self.sureness >= 0):
            raise ValueError("a number of the cost rule is out of range")


class Costs:
    """Tells before each request whether to look up, and is told what came of it. Times are seconds of one clock.

    What is observed and not yet served counts as a hit: the tier would never begin to serve otherwise. Where it is not
    `strict`, all look-ups are made, whatever they cost.
    """

    __slots__ = ("_hit_rate", "_left_out", "_lookup_s", "_num_lookups", "_pause", "_rule", "_saved_s", "_strict",
                 "num_skipped")  # fmt: skip

    def __init__(self, rule: CostRule | None = None, *, strict: bool = True) -> None:
        self._rule = rule or CostRule()
        self._strict = strict
        self._lookup_s = _Mean()
        self._saved_s = _Mean()
        self._hit_rate = _Mean()
        self._num_lookups = 0
        self._left_out = 0
        self._pause = 0
        self.num_skipped = 0

    @property
    def off(self) -> bool:
        """Whether look-ups are left out for the time being."""
        return self._left_out < self._pause

    @property
    def hit_rate(self) -> float:
        return self._hit_rate.value

    @property
    def break_even(self) -> float:
        """Hit rate, in [0, 1], from which on looking up pays; 0 while no times are known."""
        if self._lookup_s.value <= 0:
            return 0.0
        return min(1.0, self._lookup_s.value / self._saved_s.value) if self._saved_s.value > 0 else 1.0

    def wants_lookup(self) -> bool:
        """Asked once a request; False: it is generated without a look-up."""
        if not self.off:
            return True
        self._left_out += 1
        self.num_skipped += 1
        if self._left_out == self._pause:
            self._num_lookups = 0
            self._hit_rate = _Mean()
        return False

    def looked_up(self, lookup_s: float, *, hit: bool) -> None:
        """Of one that was begun before look-ups were left out, nothing counts."""
        if self.off:
            return
        span = self._rule.span
        self._lookup_s.add(lookup_s, span)
        self._hit_rate.add(float(hit), self._window)
        self._num_lookups += 1
        if self._strict and self._num_lookups >= span:
            self._judge()

    def generated(self, engine_s: float) -> None:
        """A miss took the engine so long: what a hit would have saved."""
        self._saved_s.add(engine_s, self._rule.span)

    @property
    def _window(self) -> int:
        """Look-ups over which the hit rate is averaged: in so many it can be seen to be half of break-even."""
        even = self.break_even
        if even <= 0:
            return self._rule.span
        return max(self._rule.span, min(_LONGEST_WINDOW, round(4 * self._rule.sureness**2 / even)))

    def _judge(self) -> None:
        rate, even = self._hit_rate.value, self.break_even
        spread = math.sqrt(even * (1 - even) / min(self._num_lookups, self._window))
        if self._saved_s.known and rate < even - self._rule.sureness * spread:
            self._pause = min(self._rule.longest_pause, max(2 * self._pause, self._rule.pause))
            self._left_out = 0
        else:
            self._pause = self._left_out = 0


class _Mean:
    """Of all values so far while they are fewer than the span, then with an exponential window of about that width."""

    __slots__ = ("_num", "value")

    def __init__(self) -> None:
        self._num = 0
        self.value = 0.0

    @property
    def known(self) -> bool:
        return self._num > 0

    def add(self, value: float, span: int) -> None:
        self._num = min(self._num + 1, span)
        self.value += (value - self.value) / self._num
