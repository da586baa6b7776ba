"""Limits and budgets in front of the engine: what a request may come to is held before work, and given back after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from prometheus_client.core import Metric

from forebay.tenants.ask import Ask, Hold, Limiter, Parties, Party
from forebay.tenants.limit_errors import budget_exceeded, too_large, unpriced
from forebay.tenants.spending import Cost
from forebay.tenants.windows import DAY_MS
from forebay.types import Caller

POLL_S = 0.05
MAX_PATIENCE_MS = 60_000


class Guard:
    """Knows all keys and tenants that have spent or asked. Lives on one event loop."""

    def __init__(
        self,
        limiter: Limiter,
        *,
        wall_ms: Callable[[], int],
        steady_ms: Callable[[], int],
    ) -> None:
        """Windows go by the wall clock, limits by one that is never set."""
        self._limiter = limiter
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self._parties: dict[tuple[str, str | None], Party] = {}

    def seed(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
        """What was settled before: (UTC day, tenant, key id, tokens, cost), as the ledger's `daily_totals` has it."""
        for day, tenant, key_id, num_tokens, cost in rows:
            for party in (self._party(tenant, key_id), self._party(tenant)):
                party.spending.add(day, num_tokens, cost)

    def begin(self) -> None:
        """On the running loop, once all was seeded."""
        self._limiter.begin(self._parties.values)

    async def close(self) -> None:
        """Nothing is admitted any more; what ended is told to those who share."""
        await self._limiter.close()

    def families(self) -> list[Metric]:
        return self._limiter.families()

    def peek(self, caller: Caller, fingerprint: int | None = None) -> None:
        """Before the text is read: refuses what cannot be admitted whatever the text. Raises what `admit` raises."""
        parties = self._parties_of(caller)
        for party, policy in parties:
            for budget in policy.budgets:
                if budget.hard and budget.unit == "tokens":
                    day = self._wall_ms() // DAY_MS
                    left = budget.amount - party.spending.sum(budget.window, day).tokens
                    if left < 1:
                        raise budget_exceeded(party.name, budget, left, 1, day)
        if fingerprint is not None:
            self._limiter.peek(parties, (caller.key_id, fingerprint))

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
        parties = self._parties_of(caller)
        for party, policy in parties:
            limit = policy.tokens_per_minute
            if limit is not None and not can_clamp and prompt_tokens + max_completion_tokens > limit:
                raise too_large(party.name, prompt_tokens + max_completion_tokens, limit)
            if cost is None and any(budget.unit == "money" and budget.hard for budget in policy.budgets):
                raise unpriced(party.name)
        ask = Ask(
            parties,
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
        patience_ms = max(3 * party.limits.duration_ms(ask.now) + 1000 for party, _ in ask.parties)
        until = ask.now + min(patience_ms, MAX_PATIENCE_MS)
        while True:
            await asyncio.sleep(POLL_S)
            ask.now, ask.at = self._steady_ms(), self._wall_ms()
            ask.can_wait = ask.now < until
            if (hold := await self._limiter.admit(ask)) is not None:
                return hold

    def _parties_of(self, caller: Caller) -> Parties:
        return (
            (self._party(caller.tenant, caller.key_id), caller.key_policy),
            (self._party(caller.tenant), caller.tenant_policy),
        )

    def _party(self, tenant: str, key_id: str | None = None) -> Party:
        party = self._parties.get((tenant, key_id))
        if party is None:
            party = self._parties[tenant, key_id] = Party(tenant, key_id)
        return party
