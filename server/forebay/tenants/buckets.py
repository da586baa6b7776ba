"""A token bucket in integers that keeps its promises: what one client was told to come back for, no other takes."""

from __future__ import annotations

UNIT = 60_000
"""Parts of one request or token: a rate of 1 a minute gives back one part a millisecond."""


class Bucket:
    """Holds one minute's worth and refills continuously. Amounts are in `UNIT`s, times in milliseconds.

    A `level` below zero is refill to come that is promised already. What comes back meanwhile, from requests that used
    less than they held and from promises that nobody took, is `free`: for whoever asks next, without touching promises.
    """

    __slots__ = ("at", "free", "level", "rate")

    def __init__(self, rate: int, now: int) -> None:
        """`rate` a minute."""
        self.rate = rate
        self.level = rate * UNIT
        self.free = 0
        self.at = now

    def refill(self, rate: int, now: int) -> None:
        """Call it before anything else is asked; the rate may have changed."""
        level = self.level + (now - self.at) * rate
        if level >= 0:
            level += self.free
            self.free = 0
        capacity = rate * UNIT
        self.level = min(level, capacity)
        self.rate = rate
        self.at = now

    @property
    def available(self) -> int:
        return self.level if self.level >= 0 else self.free

    def take(self, amount: int) -> None:
        """At most what is available."""
        if self.level >= 0:
            self.level -= amount
        else:
            self.free -= amount

    def wait(self, amount: int) -> int:
        """Milliseconds until so much is there beyond what is promised; 0: it is."""
        return 0 if amount <= self.available else -((self.level - amount) // self.rate)

    def book(self, amount: int) -> None:
        """Sets so much aside, out of refill to come where there is too little."""
        self.level -= amount

    def give(self, amount: int) -> None:
        """Takes back what was held and not used; below zero, more was used than was held."""
        if amount < 0:
            self.level += amount
        elif self.level < 0:
            self.free = min(self.free + amount, self.rate * UNIT)
        else:
            self.level = min(self.level + amount, self.rate * UNIT)
