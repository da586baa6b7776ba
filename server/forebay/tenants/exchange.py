"""What is said to Redis, and what it answers: the other side of stores/redis_impl/exchange.lua."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import ApiError
from forebay.tenants.ask import Ask, Claim, Hold
from forebay.tenants.buckets import UNIT
from forebay.tenants.grants import Grant, name_of
from forebay.tenants.limit_errors import budget_exceeded, rate_limited
from forebay.tenants.limit_headers import BucketsLeft, RawHeaders, limit_headers
from forebay.tenants.limits import LimitName
from forebay.tenants.parties import Party
from forebay.tenants.promises import EARLY_MS, GRACE_MS, HORIZON_MS, MAX_PROMISES
from forebay.types import Policy

CONSTANTS = (UNIT, EARLY_MS, GRACE_MS, MAX_PROMISES, HORIZON_MS)
LIMIT_NAMES: tuple[LimitName, ...] = ("requests", "tokens", "concurrency")
LET_IN, EXCEEDED, REFUSED, CLOSED, WAITS = range(5)


class Pending:
    """A request on its way to Redis and back."""

    __slots__ = ("ask", "can_repeat", "done", "grants", "parties")

    def __init__(self, ask: Ask, grants: Sequence[Grant], done: asyncio.Future[Hold | None]) -> None:
        self.ask = ask
        self.grants = grants
        """One for each claim."""
        self.done = done
        self.can_repeat = any(claim.budget.hard for claim in ask.claims)
        """Once, after an exchange that failed: without an answer a hard budget would be closed."""
        self.parties = ask.standing.limited

    def message(self) -> list[Any]:
        ask = self.ask
        return [
            hashlib.blake2b(repr(ask.whose).encode(), digest_size=8).hexdigest(),
            int(ask.can_wait),
            [
                (
                    *meter_of(party, policy),
                    held_of(policy, ask.tokens),
                    policy.max_concurrency or 0,
                    party.limits.duration_ms(ask.now),
                    party.limits.in_flight,
                )
                for party, policy in self.parties
            ],
            [
                (
                    *(grant.key, claim.budget.amount, claim.need, claim.floor, int(claim.budget.hard)),
                    *(grant.reserve, grant.left),
                )
                for claim, grant in zip(ask.claims, self.grants, strict=True)
            ],
        ]


@dataclass(frozen=True, slots=True)
class LetIn:
    """Of each claim: by how much `more` this server holds, what of it is the request's, whether that is `short`."""

    more: Sequence[int]
    granted: Sequence[int]
    short: Sequence[int]
    headers: RawHeaders


def read(pending: Pending, answer: Sequence[int]) -> LetIn | Claim | ApiError | None:
    """What Redis decided: let in, a claim on a budget that is closed, refused, or (None) that it waits for a place."""
    code, *rest = answer
    ask = pending.ask
    if code == LET_IN:
        num = 2 * len(pending.parties)
        return LetIn(rest[num::3], rest[num + 1 :: 3], rest[num + 2 :: 3], _headers(pending, rest[:num]))
    if code == EXCEEDED:
        claim = ask.claims[rest[0]]
        return budget_exceeded(claim.party.name, claim.budget, rest[1], claim.floor, ask.day)
    if code == REFUSED:
        party, policy = pending.parties[rest[0]]
        return rate_limited(party.name, policy, LIMIT_NAMES[rest[1]], rest[2], _headers(pending, rest[3:]))
    return ask.claims[rest[0]] if code == CLOSED else None


def meter_of(party: Party, policy: Policy) -> tuple[str, int, int]:
    """Name and rates; 0: not limited."""
    return name_of(party), policy.requests_per_minute or 0, policy.tokens_per_minute or 0


def held_of(policy: Policy, tokens: int) -> int:
    """In `UNIT`s, as `Limits.held` has it."""
    return 0 if policy.tokens_per_minute is None else min(tokens, policy.tokens_per_minute) * UNIT


def _headers(pending: Pending, left: Sequence[int]) -> RawHeaders:
    lefts: list[BucketsLeft] = [
        (
            None if policy.requests_per_minute is None else (policy.requests_per_minute, requests),
            None if policy.tokens_per_minute is None else (policy.tokens_per_minute, tokens),
        )
        for (_, policy), requests, tokens in zip(pending.parties, left[::2], left[1::2], strict=True)
    ]
    return limit_headers(lefts)
