"""The rate limits and the concurrency of one key, or of one tenant."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from forebay.tenants.buckets import UNIT, Bucket
from forebay.tenants.limit_headers import BucketsLeft
from forebay.tenants.promises import Promise, Promises
from forebay.types import Policy

UNKNOWN_DURATION_MS = 5_000
"""How long a request is taken to last before any has ended."""

MAX_WEIGHT = 16
"""Of so many requests each counts as much as any other, then the later ones more."""

MINUTE_MS = 60_000

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

    __slots__ = ("_found", "_mean_ms", "_num_ended", "_starts", "in_flight", "promises", "requests", "tokens",
                 "used_at")  # fmt: skip

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.in_flight = 0
        self.promises = Promises()
        self.used_at = -MINUTE_MS
        """When it was asked, or something ended, last; steady clocks begin at 0."""
        self._starts = 0
        self._mean_ms = UNKNOWN_DURATION_MS
        self._num_ended = 0
        self._found: Promise | None = None

    def enter(self, now: int) -> None:
        self.in_flight += 1
        self._starts += now

    def leave(self, began: int, now: int) -> None:
        self.used_at = now
        self.in_flight -= 1
        self._starts -= began
        if self._num_ended < MAX_WEIGHT:
            self._num_ended += 1
        self._mean_ms += (now - began - self._mean_ms) // self._num_ended

    def duration_ms(self, now: int) -> int:
        """How long requests last: as the last ones did, or as those in flight already do."""
        age = now - self._starts // self.in_flight if self.in_flight else 0
        return max(self._mean_ms, age)

    def refusal(self, policy: Policy, whose: Hashable, tokens: int | None, now: int) -> Refusal | None:
        """The limit that makes it wait longest; None where all let it pass."""
        self._refill(policy, now)
        self._found = found = self._look_up(whose, now) if self.promises.dues else None
        limit: LimitName = "requests"
        longest = 0
        if self.requests is not None:
            longest = self.requests.wait(UNIT if found is None else UNIT - found.requests)
        if self.tokens is not None and tokens is not None:
            held = min(tokens, self.tokens.rate) * UNIT
            wait = self.tokens.wait(held if found is None else held - found.tokens)
            if wait > longest:
                limit, longest = "tokens", wait
        most = policy.max_concurrency
        if most is not None and (self.in_flight >= most or self.promises.dues):
            wait = self._wait_for_place(most, now)
            if wait > longest:
                return Refusal("concurrency", wait, only_a_place=longest == 0)
        return Refusal(limit, longest, only_a_place=False) if longest else None

    @property
    def found(self) -> bool:
        """Whether what was looked at last came as it was told."""
        return self._found is not None

    def take(self, tokens: int, now: int) -> int:
        """It is let in. Returns what it holds of the bucket of tokens, in that bucket's units."""
        if (found := self._found) is not None:
            self.promises.take(found)
        held = 0
        if self.requests is not None:
            self.requests.take(UNIT, 0 if found is None else found.requests)
        if self.tokens is not None:
            held = min(tokens, self.tokens.rate) * UNIT
            self.tokens.take(held, 0 if found is None else found.tokens)
        self.in_flight += 1
        self._starts += now
        return held

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
            held = max(min(tokens, self.tokens.rate) * UNIT, promise.tokens)
            self.tokens.set_aside(held - promise.tokens)
            promise.tokens = held
        self.promises.add(promise, due)

    def keep(self, now: int) -> None:
        """It waits here for its place."""
        if (found := self._found) is not None:
            self.promises.take(found)
            self.promises.add(found, now)

    @property
    def left(self) -> BucketsLeft:
        """Of requests and of tokens."""
        requests, tokens = self.requests, self.tokens
        return None if requests is None else requests.left, None if tokens is None else tokens.left

    def lift(self) -> None:
        """Nothing limits it any more, so nothing is promised; a limit that is set later begins anew."""
        self.requests = self.tokens = None
        self.promises = Promises()

    def is_at_rest(self, now: int) -> bool:
        """Whether it is as good as new, at whatever rate: for a minute nothing was asked, nothing runs or is promised
        any more, and no more was used than what that minute has refilled."""
        if self.in_flight or now - self.used_at < MINUTE_MS:
            return False
        self._lapse(now)
        buckets = (self.requests, self.tokens)
        return not self.promises.dues and all(
            bucket is None or (bucket.level >= 0 and now - bucket.at >= MINUTE_MS) for bucket in buckets
        )

    def _refill(self, policy: Policy, now: int) -> None:
        if (rate := policy.requests_per_minute) is None:
            self.requests = None
        elif self.requests is None:
            self.requests = Bucket(rate, now)
        else:
            self.requests.refill(rate, now)
        if (rate := policy.tokens_per_minute) is None:
            self.tokens = None
        elif self.tokens is None:
            self.tokens = Bucket(rate, now)
        else:
            self.tokens.refill(rate, now)

    def _look_up(self, whose: Hashable, now: int) -> Promise | None:
        self._lapse(now)
        return self.promises.find(whose, now)

    def _lapse(self, now: int) -> None:
        for lapsed in self.promises.lapse(now):
            self._give_back(lapsed)

    def _give_back(self, promise: Promise) -> None:
        if self.requests is not None:
            self.requests.lapse(promise.requests)
        if self.tokens is not None:
            self.tokens.lapse(promise.tokens)

    def _wait_for_place(self, limit: int, now: int) -> int:
        """0: there is one. Places are kept from newcomers for those who come back before the newcomer would be done."""
        dues = self.promises.dues
        duration_ms = self.duration_ms(now)
        kept = 0 if self._found or not dues else self.promises.num_due(now + duration_ms)
        if self.in_flight + kept < limit:
            return 0
        number = len(dues) + (self._found is None)
        return place_wait_ms(number, limit, duration_ms)


def place_wait_ms(number: int, limit: int, duration_ms: int) -> int:
    """When the `number`-th in line finds a place: they come free every `duration_ms / limit`, on average.

    A share of 1 / sqrt(limit) is left to chance: the fewer places, the more an unusually long request matters.
    """
    root = isqrt(100 * limit)
    return max(1, number * duration_ms * (root + 10) // (limit * root))
