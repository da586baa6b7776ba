"""The rate limits and the concurrency of one key, or of one tenant."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from forebay.tenants.buckets import UNIT, Bucket
from forebay.tenants.promises import Promise, Promises
from forebay.types import Policy

UNKNOWN_DURATION_MS = 5_000
"""How long a request is taken to last before any has ended."""

MAX_WEIGHT = 16
"""Of so many requests each counts as much as any other, then the later ones more."""

LimitName = Literal["requests", "tokens", "concurrency"]


def is_limited(policy: Policy) -> bool:
    return not (policy.requests_per_minute is policy.tokens_per_minute is policy.max_concurrency is None)


@dataclass(frozen=True, slots=True)
class Refusal:
    """`wait_ms`: from now, when it is to come back. `only_a_place`: nothing but concurrency refuses."""

    limit: LimitName
    wait_ms: int
    only_a_place: bool


class Limits:
    """What is left now. `refusal` first, then one of `take`, `promise` and `keep`. Times are in milliseconds.

    `whose` tells a client that comes back as told from others. `tokens` is what a request may come to, None where its
    text was not read yet: limits on tokens are then left for later.
    """

    __slots__ = ("_found", "_mean_ms", "_num_ended", "_starts", "in_flight", "promises", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.in_flight = 0
        self.promises = Promises()
        self._starts = 0
        self._mean_ms = UNKNOWN_DURATION_MS
        self._num_ended = 0
        self._found: Promise | None = None

    def enter(self, now: int) -> None:
        self.in_flight += 1
        self._starts += now

    def leave(self, began: int, now: int) -> None:
        self.in_flight -= 1
        self._starts -= began
        self._num_ended = min(self._num_ended + 1, MAX_WEIGHT)
        self._mean_ms += (now - began - self._mean_ms) // self._num_ended

    def duration_ms(self, now: int) -> int:
        """How long requests last: as the last ones did, or as those in flight already do."""
        age = now - self._starts // self.in_flight if self.in_flight else 0
        return max(self._mean_ms, age)

    def refusal(self, policy: Policy, whose: Hashable, tokens: int | None, now: int) -> Refusal | None:
        """The limit that makes it wait longest; None where all let it pass."""
        self._refill(policy, now)
        self._found = found = self._look_up(whose, now) if self.promises else None
        limit: LimitName = "requests"
        longest = 0
        if self.requests is not None:
            longest = self.requests.wait(UNIT - (found.requests if found else 0))
        if self.tokens is not None and tokens is not None:
            wait = self.tokens.wait(self.held(tokens) - (found.tokens if found else 0))
            if wait > longest:
                limit, longest = "tokens", wait
        if policy.max_concurrency is not None:
            wait = self._wait_for_place(policy.max_concurrency, now)
            if wait > longest:
                return Refusal("concurrency", wait, only_a_place=longest == 0)
        return Refusal(limit, longest, only_a_place=False) if longest else None

    @property
    def found(self) -> bool:
        """Whether what was looked at last came as it was told."""
        return self._found is not None

    def take(self, tokens: int, now: int) -> None:
        """It is let in."""
        if (found := self._found) is not None:
            self.promises.take(found)
        if self.requests is not None:
            self.requests.take(UNIT, found.requests if found else 0)
        if self.tokens is not None:
            self.tokens.take(self.held(tokens), found.tokens if found else 0)
        self.enter(now)

    def promise(self, whose: Hashable, tokens: int | None, now: int, due: int, *, refused: bool) -> None:
        """It is told to come back at `due`. `refused`: by this key or tenant itself.

        What was set aside for it already stays so until then.
        """
        found = self._found
        if found is not None:
            self.promises.take(found)
        elif not refused:
            return
        if not self.promises.can_add(due - now):
            if found is not None:
                self._give_back(found)
            return
        promise = found or Promise(whose)
        if refused and self.requests is not None:
            self.requests.set_aside(UNIT - promise.requests)
            promise.requests = UNIT
        if refused and self.tokens is not None and tokens is not None:
            held = max(self.held(tokens), promise.tokens)
            self.tokens.set_aside(held - promise.tokens)
            promise.tokens = held
        self.promises.add(promise, due)

    def keep(self, now: int) -> None:
        """It waits here for its place."""
        if (found := self._found) is not None:
            self.promises.take(found)
            self.promises.add(found, now)

    def held(self, tokens: int) -> int:
        """In the bucket's units: never more than it can hold; nothing where tokens are not limited."""
        return 0 if self.tokens is None else min(tokens, self.tokens.rate) * UNIT

    def _refill(self, policy: Policy, now: int) -> None:
        self.requests = _refilled(self.requests, policy.requests_per_minute, now)
        self.tokens = _refilled(self.tokens, policy.tokens_per_minute, now)

    def _look_up(self, whose: Hashable, now: int) -> Promise | None:
        for lapsed in self.promises.lapse(now):
            self._give_back(lapsed)
        return self.promises.find(whose, now)

    def _give_back(self, promise: Promise) -> None:
        if self.requests is not None:
            self.requests.lapse(promise.requests)
        if self.tokens is not None:
            self.tokens.lapse(promise.tokens)

    def _wait_for_place(self, limit: int, now: int) -> int:
        """0: there is one. Places are kept from newcomers for those who come back before the newcomer would be done."""
        if self.in_flight < limit and not self.promises:
            return 0
        duration_ms = self.duration_ms(now)
        kept = 0 if self._found or not self.promises else self.promises.num_due(now + duration_ms)
        if self.in_flight + kept < limit:
            return 0
        number = len(self.promises) + (self._found is None)
        return place_wait_ms(number, limit, duration_ms)


def place_wait_ms(number: int, limit: int, duration_ms: int) -> int:
    """When the `number`-th in line finds a place: they come free every `duration_ms / limit`, on average.

    A share of 1 / sqrt(limit) is left to chance: the fewer places, the more an unusually long request matters.
    """
    root = isqrt(100 * limit)
    return max(1, number * duration_ms * (root + 10) // (limit * root))


def _refilled(bucket: Bucket | None, rate: int | None, now: int) -> Bucket | None:
    if rate is None:
        return None
    if bucket is None:
        return Bucket(rate, now)
    bucket.refill(rate, now)
    return bucket
