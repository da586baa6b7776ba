"""Limits and budgets in front of the engine: what a request may come to is held before work, and given back after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NoReturn

from prometheus_client.core import Metric

from forebay.tenants.ask import Ask, Hold, Limiter
from forebay.tenants.limit_errors import budget_exceeded, too_large, unpriced
from forebay.tenants.parties import Parties, Standing
from forebay.tenants.spending import Cost
from forebay.tenants.windows import DAY_MS
from forebay.types import Caller

POLL_S = 0.05
MAX_PATIENCE_MS = 60_000

NUM_READY = 1024
"""Keys and tenants of which all is kept, whether they ask or not: 1.3 KB each."""


class Guard:
    """Knows all keys and tenants that have spent or asked. Lives on one event loop."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        wall_ms: Callable[[], int],
        steady_ms: Callable[[], int],
        num_ready: int = NUM_READY,
    ) -> None:
        """Windows go by the wall clock, limits by one that is never set. `num_ready`: see `Parties`."""
        self._limiter = limiter
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self.parties = Parties(steady_ms, num_ready=num_ready, can_rest=not limiter.keeps_parties)

    def seed(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
        """What was settled before: (UTC day, tenant, key id, tokens, cost), as the ledger's `daily_totals` has it."""
        self.parties.seed(rows)

    def begin(self) -> None:
        """On the running loop, once all was seeded."""
        self._limiter.begin(self.parties.all)

    async def close(self) -> None:
        """Nothing is admitted any more; what ended is told to those who share."""
        await self._limiter.close()

    def families(self) -> list[Metric]:
        return self._limiter.families()

    def peek(self, caller: Caller, fingerprint: int | None = None) -> None:
        """Before the text is read: refuses what cannot be admitted whatever the text. Raises what `admit` raises."""
        standing = self.parties.standing_of(caller)
        if standing.has_hard_tokens:
            day = self._wall_ms() // DAY_MS
            for party, budget, spent in standing.budgets(day):
                if budget.unit == "tokens" and budget.hard and spent.tokens >= budget.amount:
                    raise budget_exceeded(party.name, budget, budget.amount - spent.tokens, 1, day)
        if fingerprint is not None:
            self._limiter.peek(standing, (caller.key_id, fingerprint))

    async def admit(
        self,
        caller: Caller,
        *,
        prompt_tokens: int,
        max_completion_tokens: int,
        can_clamp: bool,
        cost: Cost | None,
        num_choices: int = 1,
        fingerprint: int | None = None,
    ) -> Hold:
        """Holds the most that the request may come to, of every limit and budget of key and tenant, or of none.

        `max_completion_tokens` is for all of `num_choices` together, and clamped to a multiple of that. `cost` is None
        where the model has no price. `fingerprint` is the same for the same request again, and seldom for others.
        Waits only for a place that it was told to come back for. Raises `RateLimited`, `QuotaExceeded`, `Unavailable`.
        """
        standing, tokens = self.parties.standing_of(caller), prompt_tokens + max_completion_tokens
        is_too_large = standing.token_limit is not None and tokens > standing.token_limit and not can_clamp
        if is_too_large or (cost is None and standing.has_hard_money):
            _refuse(standing, None if can_clamp else tokens, has_price=cost is not None)
        ask = Ask(
            standing,
            (caller.key_id, (prompt_tokens, max_completion_tokens) if fingerprint is None else fingerprint),
            now=self._steady_ms(),
            at=self._wall_ms(),
            prompt_tokens=prompt_tokens,
            completion_tokens=max_completion_tokens,
            step=num_choices if can_clamp else None,
            cost=cost,
        )
        return await self._limiter.admit(ask) or await self._wait_for_place(ask)

    async def _wait_for_place(self, ask: Ask) -> Hold:
        """It came when it was told to, but requests before it take longer than they used to."""
        patience_ms = max(3 * party.limits.duration_ms(ask.now) + 1000 for party in ask.standing.parties)
        until = ask.now + min(patience_ms, MAX_PATIENCE_MS)
        while True:
            await asyncio.sleep(POLL_S)
            ask.is_asked(self._steady_ms(), self._wall_ms())
            ask.can_wait = ask.now < until
            if (hold := await self._limiter.admit(ask)) is not None:
                return hold


def _refuse(standing: Standing, tokens: int | None, *, has_price: bool) -> NoReturn:
    """What never can be admitted, for what the key asks first. `tokens`: where they cannot be clamped."""
    for party, policy in standing.with_policies:
        limit = policy.tokens_per_minute
        if limit is not None and tokens is not None and tokens > limit:
            raise too_large(party.name, tokens, limit)
        if not has_price and any(budget.unit == "money" and budget.hard for budget in policy.budgets):
            raise unpriced(party.name)
    raise AssertionError("nothing refuses it")
