"""Limits and budgets counted in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import structlog
from prometheus_client.core import Metric

from forebay.tenants.ask import Ask, Claim, Ending, Hold
from forebay.tenants.buckets import UNIT
from forebay.tenants.limit_errors import budget_exceeded, rate_limited
from forebay.tenants.limit_headers import limit_headers
from forebay.tenants.parties import Party, Standing
from forebay.tenants.windows import index_of
from forebay.types import Budget, Policy

log = structlog.get_logger(__name__)


class LocalLimiter:
    """Decides at once; nothing in it waits."""

    keeps_parties = False

    def __init__(self, steady_ms: Callable[[], int]) -> None:
        self._steady_ms = steady_ms
        self._told: dict[tuple[str, str | None, Budget], int] = {}
        """Soft budgets that were exceeded, and in which window last."""
        self.num_shares = 1
        """Of each limit, this process grants one share in so many."""

    def begin(self, parties: Callable[[], Iterable[Party]]) -> None:
        """Nobody else is to be told of them."""

    async def close(self) -> None:
        """Nothing is left to be said."""

    def families(self) -> list[Metric]:
        return []

    def peek(self, standing: Standing, whose: Hashable) -> None:
        if standing.is_limited and standing.token_limit is None:
            self._refuse(standing, whose, None, self._steady_ms(), can_wait=True)

    async def admit(self, ask: Ask) -> Hold | None:
        return self.admit_now(ask, None if ask.is_affordable else self.grant(ask), self)

    def admit_now(self, ask: Ask, grants: Sequence[int] | None, ending: Ending) -> Hold | None:
        """Limits alone; `grants` are of the budgets, as in `Ask.hold`. `ending` is told when it has ended."""
        standing, now = ask.standing, ask.now
        if standing.is_limited and not self._refuse(standing, ask.whose, ask.tokens, now, can_wait=ask.can_wait):
            return None
        for party in standing.unlimited:
            party.limits.enter(now)
        if not standing.is_limited:
            return ask.hold(ending, grants, (), [])
        held, left = [], []
        for party, _ in standing.limited:
            held.append(party.limits.take(ask.tokens, now))
            left.append(party.limits.left)
        return ask.hold(ending, grants, held, limit_headers(left))

    def ended(self, hold: Hold, num_tokens: int) -> None:
        ask, now = hold.ask, self._steady_ms()
        for party in ask.standing.parties:
            party.limits.leave(ask.now, now)
        for (party, _), held in zip(ask.standing.limited, hold.held, strict=True):
            if held and (tokens := party.limits.tokens) is not None:
                tokens.give(held - num_tokens * UNIT)

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
        whose, window = (party.tenant, party.key_id, budget), index_of(budget.window, day)
        if self._told.get(whose) != window:
            self._told[whose] = window
            log.warning(
                "soft_budget_exceeded",
                whose=party.name,
                tenant=party.tenant,
                key_id=party.key_id,
                amount=budget.amount,
                unit=budget.unit,
                window=budget.window,
            )

    def _refuse(self, standing: Standing, whose: Hashable, tokens: int | None, now: int, *, can_wait: bool) -> bool:
        """False: it waits here for a place. Raises `RateLimited`, and promises what it tells."""
        shares, longest = self.num_shares, None
        refusals = []
        for party, policy in standing.limited:
            refusal = party.limits.refusal(policy if shares == 1 else share_of(policy, shares), whose, tokens, now)
            refusals.append(refusal)
            if refusal is not None and (longest is None or refusal.wait_ms > longest[0].wait_ms):
                longest = refusal, party, policy
        if longest is None:
            return True
        limits = [party.limits for party, _ in standing.limited]
        lacks_only_a_place = all(refusal is None or refusal.only_a_place for refusal in refusals)
        if can_wait and lacks_only_a_place and any(one.found for one in limits):
            for one in limits:
                one.keep(now)
            return False
        refusal, party, policy = longest
        retry_s = math.ceil(refusal.wait_ms / 1000)
        for one, its in zip(limits, refusals, strict=True):
            one.promise(whose, tokens, now, now + retry_s * 1000, refused=its is not None)
        raise rate_limited(party.name, policy, refusal.limit, retry_s, limit_headers([one.left for one in limits]))


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
