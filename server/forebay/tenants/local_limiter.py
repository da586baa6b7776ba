"""Limits and budgets counted in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import structlog
from prometheus_client.core import Metric

from forebay.tenants.ask import Ask, Claim, Ending, Hold, Parties, Party
from forebay.tenants.buckets import UNIT, Bucket
from forebay.tenants.limit_errors import budget_exceeded, rate_limited
from forebay.tenants.limit_headers import BucketsLeft, limit_headers
from forebay.tenants.limits import Refusal
from forebay.tenants.windows import index_of
from forebay.types import Budget, Policy

NOTHING = (0, 0)

log = structlog.get_logger(__name__)


class LocalLimiter:
    """Decides at once; nothing in it waits."""

    def __init__(self, steady_ms: Callable[[], int]) -> None:
        self._steady_ms = steady_ms
        self._told: set[tuple[Party, Budget, int]] = set()
        self.num_shares = 1
        """Of each limit, this process grants one share in so many."""

    def begin(self, parties: Callable[[], Iterable[Party]]) -> None:
        """Nobody else is to be told of them."""

    async def close(self) -> None:
        """Nothing is left to be said."""

    def families(self) -> list[Metric]:
        return []

    def peek(self, parties: Parties, whose: Hashable) -> None:
        if all(policy.tokens_per_minute is None for _, policy in parties):
            self._refuse(parties, whose, None, self._steady_ms(), can_wait=True)

    async def admit(self, ask: Ask) -> Hold | None:
        return self.admit_now(ask, self.grant(ask), self)

    def admit_now(self, ask: Ask, grants: Sequence[int], ending: Ending) -> Hold | None:
        """Limits alone; `grants` are of the budgets. `ending` is told when it has ended."""
        if not ask.is_limited:
            for party, _ in ask.parties:
                party.limits.enter(ask.now)
            return ask.hold(ending, grants, NOTHING, {})
        if not self._refuse(ask.parties, ask.whose, ask.tokens, ask.now, can_wait=ask.can_wait):
            return None
        for party, _ in ask.parties:
            party.limits.take(ask.tokens, ask.now)
        held = [party.limits.held(ask.tokens) for party, _ in ask.parties]
        return ask.hold(ending, grants, held, limit_headers(_left(ask.parties)))

    def ended(self, hold: Hold, num_tokens: int) -> None:
        ask, now = hold.ask, self._steady_ms()
        for (party, _), held in zip(ask.parties, hold.held, strict=True):
            limits = party.limits
            limits.leave(ask.now, now)
            if held and limits.tokens is not None:
                limits.tokens.give(held - num_tokens * UNIT)

    def grant(self, ask: Ask) -> list[int]:
        """What each claim gets of its budget. Raises `QuotaExceeded`."""
        grants = []
        for claim in ask.claims:
            budget = claim.budget
            left = budget.amount - claim.party.spending.sum(budget.window, ask.day).of(budget.unit)
            if budget.hard and left < claim.floor:
                raise budget_exceeded(claim.party.name, budget, left, claim.floor, ask.day)
            if not budget.hard and left < claim.need:
                self.tell(claim, ask.day)
            grants.append(min(left, claim.need))
        return grants

    def tell(self, claim: Claim, day: int) -> None:
        """One line for each window of a soft budget that is exceeded."""
        party, budget = claim.party, claim.budget
        told = party, budget, index_of(budget.window, day)
        if told not in self._told:
            self._told.add(told)
            log.warning(
                "soft_budget_exceeded",
                whose=party.name,
                tenant=party.tenant,
                key_id=party.key_id,
                amount=budget.amount,
                unit=budget.unit,
                window=budget.window,
            )

    def _refuse(self, parties: Parties, whose: Hashable, tokens: int | None, now: int, *, can_wait: bool) -> bool:
        """False: it waits here for a place. Raises `RateLimited`, and promises what it tells."""
        refusals = [
            party.limits.refusal(
                policy if self.num_shares == 1 else share_of(policy, self.num_shares), whose, tokens, now
            )
            for party, policy in parties
        ]
        if not any(refusals):
            return True
        longest: tuple[Refusal, Party, Policy] | None = None
        for refusal, (party, policy) in zip(refusals, parties, strict=True):
            if refusal is not None and (longest is None or refusal.wait_ms > longest[0].wait_ms):
                longest = refusal, party, policy
        assert longest is not None
        limits = [party.limits for party, _ in parties]
        lacks_only_a_place = all(refusal is None or refusal.only_a_place for refusal in refusals)
        if can_wait and lacks_only_a_place and any(one.found for one in limits):
            for one in limits:
                one.keep(now)
            return False
        refusal, party, policy = longest
        retry_s = math.ceil(refusal.wait_ms / 1000)
        for one, its in zip(limits, refusals, strict=True):
            one.promise(whose, tokens, now, now + retry_s * 1000, refused=its is not None)
        raise rate_limited(party.name, policy, refusal.limit, retry_s, limit_headers(_left(parties)))


def _left(parties: Parties) -> list[BucketsLeft]:
    return [(_left_of(party.limits.requests), _left_of(party.limits.tokens)) for party, _ in parties]


def _left_of(bucket: Bucket | None) -> tuple[int, int] | None:
    return None if bucket is None else (bucket.rate, max(bucket.available, 0))


@lru_cache(maxsize=1024)
def share_of(policy: Policy, num_shares: int) -> Policy:
    """One of so many equal shares of the limits, at least one of each."""
    return replace(
        policy,
        requests_per_minute=_share(policy.requests_per_minute, num_shares),
        tokens_per_minute=_share(policy.tokens_per_minute, num_shares),
        max_concurrency=_share(policy.max_concurrency, num_shares),
    )


def _share(limit: int | None, num_shares: int) -> int | None:
    return None if limit is None else max(1, limit // num_shares)
