"""The rate limits and the concurrency of one key, or of one tenant."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from forebay.tenants.buckets import UNIT, Bucket
from forebay.tenants.promises import Promise, Promises
from forebay.types import Policy

UNKNOWN_DURATION_MS = 1_000
"""How long a request is taken to last before any has ended."""

LimitName = Literal["requests", "tokens", "concurrency"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request before its limits. `whose` tells a client that comes back as told from others.

    `tokens` is what it may come to, None where its text was not read yet: limits on tokens are then left for later.
    """

    whose: Hashable
    now: int
    tokens: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """`wait_ms`: from now, when it is to come back."""

    limit: LimitName
    wait_ms: int


class Limits:
    """What is left now. `refusal` first, then either `take` or, where some limit refuses, `promise`."""

    __slots__ = ("_found", "in_flight", "mean_ms", "promises", "requests", "tokens")

    def __init__(self) -> None:
        self.requests: Bucket | None = None
        self.tokens: Bucket | None = None
        self.in_flight = 0
        self.mean_ms = UNKNOWN_DURATION_MS
        """How long requests last, the recent ones counting most."""
        self.promises = Promises()
        self._found: Promise | None = None

    def refusal(self, policy: Policy, ask: Ask) -> Refusal | None:
        """The limit that makes it wait longest; None where all let it pass."""
        now = ask.now
        self._refill(policy, now)
        promises = self.promises
        if promises:
            for lapsed in promises.lapse(now):
                self._give_back(lapsed)
        self._found = found = promises.find(ask.whose, now) if promises else None
        limit: LimitName = "requests"
        longest = 0
        if self.requests is not None:
            longest = self.requests.wait(UNIT - (found.requests if found else 0))
        if self.tokens is not None and ask.tokens is not None:
            wait = self.tokens.wait(self.held_tokens(ask.tokens) - (found.tokens if found else 0))
            if wait > longest:
                limit, longest = "tokens", wait
        if policy.max_concurrency is not None and self.in_flight + self._num_awaited(now) >= policy.max_concurrency:
            wait = self._wait_for_place(policy.max_concurrency)
            if wait > longest:
                limit, longest = "concurrency", wait
        return Refusal(limit, longest) if longest else None

    def take(self, ask: Ask) -> None:
        """Right after `refusal` returned None."""
        requests, tokens = UNIT, self.held_tokens(ask.tokens or 0)
        if (found := self._found) is not None:
            self.promises.take(found)
            requests -= found.requests
            tokens -= found.tokens
        if self.requests is not None:
            self.requests.take(requests)
        if self.tokens is not None:
            if tokens >= 0:
                self.tokens.take(tokens)
            else:
                self.tokens.give(-tokens)
        self.in_flight += 1

    def promise(self, ask: Ask, due: int, *, refused: bool) -> None:
        """Right after `refusal`: it is told to come back at `due`. `refused`: by this key or tenant itself.

        What was set aside for it already stays so until then.
        """
        found = self._found
        if found is not None:
            self.promises.take(found)
        elif not refused:
            return
        if not self.promises.can_add(due - ask.now):
            if found is not None:
                self._give_back(found)
            return
        promise = found or Promise(ask.whose)
        if refused and self.requests is not None:
            self.requests.book(UNIT - promise.requests)
            promise.requests = UNIT
        if refused and self.tokens is not None and ask.tokens is not None:
            tokens = self.held_tokens(ask.tokens)
            if tokens > promise.tokens:
                self.tokens.book(tokens - promise.tokens)
                promise.tokens = tokens
        self.promises.add(promise, due)

    def held_tokens(self, tokens: int) -> int:
        """In the bucket's units: never more than it can hold."""
        return 0 if self.tokens is None else min(tokens, self.tokens.rate) * UNIT

    def end(self, duration_ms: int, held: int, num_tokens: int) -> None:
        """A request has ended. `held`: what `held_tokens` said when it was let in; `num_tokens`: what it came to."""
        self.in_flight -= 1
        self.mean_ms += (duration_ms - self.mean_ms) // 8
        if self.tokens is not None and held:
            self.tokens.give(held - num_tokens * UNIT)

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

    def _give_back(self, promise: Promise) -> None:
        if self.requests is not None:
            self.requests.give(promise.requests)
        if self.tokens is not None:
            self.tokens.give(promise.tokens)

    def _num_awaited(self, now: int) -> int:
        """Places kept for those who come back before a request that begins now would end."""
        if not self.promises:
            return 0
        num = self.promises.num_due(now + self.mean_ms)
        return num - 1 if self._found is not None else num

    def _wait_for_place(self, limit: int) -> int:
        """Until so many requests will have ended as are promised a place, with room for chance: for a Poisson process
        k + 2 sqrt(k) expected ends mean at least k in 95 of 100 cases."""
        k = len(self.promises) + 1 - (self._found is not None)
        return max(1, self.mean_ms * (k + isqrt(4 * k)) // limit)
