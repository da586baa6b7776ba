"""A token bucket in integers that keeps its promises: what one client was told to come back for, no other takes."""

from __future__ import annotations

UNIT = 60_000
"""Parts of one request or token: a rate of 1 a minute gives back one part a millisecond."""


class Bucket:
    """Holds one minute's worth and refills continuously. Amounts are in `UNIT`s, times in milliseconds.

    What is promised is set `aside`, and is part of what the bucket holds. A `level` below zero is refill to come, all
    of it promised. What comes back meanwhile, from requests that used less than they held and from promises that
    nobody took, is `free`: for whoever asks next, without touching promises.
    """

    __slots__ = ("aside", "at", "free", "level", "rate")

    def __init__(self, rate: int, now: int) -> None:
        """`rate` a minute."""
        self.rate = rate
        self.level = rate * UNIT
        self.free = 0
        self.aside = 0
        self.at = now

    def refill(self, rate: int, now: int) -> None:
        """Call it before anything else is asked; the rate may have changed."""
        if now != self.at or rate != self.rate:
            self.level += (now - self.at) * rate
            if self.level >= 0:
                self.level += self.free
                self.free = 0
            self.rate = rate
            self.at = now
            self._cap()

    def take(self, amount: int, promised: int = 0) -> None:
        """`promised` of it was set aside; of the rest, at most what is available."""
        self.aside -= promised
        if amount < promised:
            self.give(promised - amount)
        elif self.level >= 0:
            self.level -= amount - promised
        else:
            self.free -= amount - promised

    def wait(self, amount: int) -> int:
        """Milliseconds until so much is there beyond what is promised; 0: it is."""
        level = self.level
        return 0 if amount <= (level if level >= 0 else self.free) else -((level - amount) // self.rate)

    @property
    def left(self) -> tuple[int, int]:
        """The rate a minute, and what is there beyond what is promised."""
        level = self.level
        return self.rate, level if level >= 0 else max(self.free, 0)

    def set_aside(self, amount: int) -> None:
        """Promises so much for when `wait` says that it is there."""
        if self.level < 0 and amount <= self.free:
            self.free -= amount
        else:
            self.level -= amount
        self.aside += amount

    def lapse(self, amount: int) -> None:
        """What was set aside is not taken."""
        self.aside -= amount
        self.give(amount)

    def give(self, amount: int) -> None:
        """Takes back what was held and not used; below zero, more was used than was held."""
        if amount > 0 > self.level:
            self.free += amount
        else:
            self.level += amount
        self._cap()

    def _cap(self) -> None:
        """Promises are kept even where they fill the bucket; others then find nothing."""
        room = self.rate * UNIT - self.aside
        if self.level > 0:
            self.level = max(0, min(self.level, room))
        elif self.free:
            self.free = max(0, min(self.free, room - self.level))
