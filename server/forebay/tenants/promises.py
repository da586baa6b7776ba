"""Who was told to come back when, and what is kept for him."""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Hashable, Iterator
from itertools import count

EARLY_MS = 20
"""A client's timer may be a little fast."""

GRACE_MS = 2_000
"""How late a client may come back and still find what was promised."""

MAX_PROMISES = 4_096
HORIZON_MS = 3_600_000
"""Beyond so many, and beyond an hour, nothing is set aside any more; the time that is told is only an estimate."""


class Promise:
    """`tokens` and `requests` are set aside in the buckets (in their units), and a place from about `due` on."""

    __slots__ = ("due", "requests", "taken", "tokens", "whose")

    def __init__(self, whose: Hashable) -> None:
        self.whose = whose
        self.due = 0
        self.requests = 0
        self.tokens = 0
        self.taken = False

    def __lt__(self, other: Promise) -> bool:
        return self.due < other.due


class Promises:
    """The open promises of a key, or of a tenant."""

    __slots__ = ("_by_due", "_by_owner", "_numbers", "dues")

    def __init__(self) -> None:
        self._by_owner: dict[Hashable, list[Promise]] = {}
        self._by_due: list[tuple[int, int, Promise]] = []
        self.dues: list[int] = []
        """When each is due, in order."""
        self._numbers = count()

    def can_add(self, wait_ms: int) -> bool:
        return wait_ms <= HORIZON_MS and len(self.dues) < MAX_PROMISES

    def num_due(self, by: int) -> int:
        """How many are due by then."""
        return bisect_right(self.dues, by)

    def add(self, promise: Promise, due: int) -> None:
        """The same promise may be added again for a later time, once it was taken."""
        promise.due = due
        promise.taken = False
        insort(self._by_owner.setdefault(promise.whose, []), promise)
        insort(self.dues, due)
        heapq.heappush(self._by_due, (due, next(self._numbers), promise))

    def find(self, whose: Hashable, now: int) -> Promise | None:
        """The owner's earliest promise, if it is due."""
        owned = self._by_owner.get(whose)
        return owned[0] if owned and owned[0].due <= now + EARLY_MS else None

    def take(self, promise: Promise) -> None:
        """It is kept, or lapses. The earliest of its owner."""
        owned = self._by_owner[promise.whose]
        assert owned.pop(0) is promise
        if not owned:
            del self._by_owner[promise.whose]
        del self.dues[bisect_right(self.dues, promise.due) - 1]
        promise.taken = True

    def lapse(self, now: int) -> Iterator[Promise]:
        """Those that nobody came for."""
        while self._by_due and self._by_due[0][0] < now - GRACE_MS:
            due, _, promise = heapq.heappop(self._by_due)
            if not promise.taken and promise.due == due:
                self.take(promise)
                yield promise
