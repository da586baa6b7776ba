"""Limits and budgets in front of the engine: what a request may come to is held before work, and given back after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Mapping

import structlog

from forebay.tenants.limit_errors import budget_exceeded, rate_limited, too_large, unpriced
from forebay.tenants.limit_headers import limit_headers
from forebay.tenants.limits import Ask, Limits, Refusal
from forebay.tenants.spending import Cost, Spending, affordable, need_of
from forebay.tenants.windows import DAY_MS, index_of
from forebay.types import Budget, Caller, Policy

log = structlog.get_logger(__name__)


def _wall() -> int:
    return time.time_ns() // 1_000_000


def _steady() -> int:
    return time.monotonic_ns() // 1_000_000


class Party:
    """A key or a tenant, as limits and budgets know it."""

    __slots__ = ("key_id", "limits", "name", "spending", "tenant")

    def __init__(self, tenant: str, key_id: str | None = None) -> None:
        """A tenant has no key id. `name` is what errors call it."""
        self.name = "tenant" if key_id is None else "key"
        self.tenant = tenant
        self.key_id = key_id
        self.limits = Limits()
        self.spending = Spending()


Parties = tuple[tuple[Party, Policy], tuple[Party, Policy]]


class Hold:
    """What one admitted request may come to, until `settle`."""

    __slots__ = (
        "_began",
        "_day",
        "_parties",
        "_settled",
        "_steady_ms",
        "_tokens",
        "at",
        "cost",
        "headers",
        "max_completion_tokens",
    )

    def __init__(
        self,
        parties: Parties,
        *,
        at: int,
        began: int,
        prompt_tokens: int,
        max_completion_tokens: int,
        cost: int,
        headers: Mapping[str, str],
        steady_ms: Callable[[], int],
    ) -> None:
        self.max_completion_tokens = max_completion_tokens
        """Never more than was asked for; less where a hard budget affords less."""
        self.cost = cost
        """Micro-units held."""
        self.headers = headers
        self.at = at
        """Unix milliseconds of admission. Its day decides whose window pays, so the ledger's row should say the same."""
        self._began = began
        self._steady_ms = steady_ms
        self._day = at // DAY_MS
        self._tokens = prompt_tokens + max_completion_tokens
        self._parties = tuple((party, party.limits.held_tokens(self._tokens)) for party, _ in parties)
        self._settled = False

    def settle(self, num_tokens: int, cost: int) -> None:
        """What it came to: prompt and completion tokens, micro-units. Idempotent."""
        if self._settled:
            return
        self._settled = True
        duration_ms = self._steady_ms() - self._began
        for party, held in self._parties:
            party.spending.add(self._day, num_tokens - self._tokens, cost - self.cost)
            party.limits.end(duration_ms, held, num_tokens)


class Guard:
    """Lives on one event loop; nothing in it waits."""

    def __init__(self, *, wall_ms: Callable[[], int] = _wall, steady_ms: Callable[[], int] = _steady) -> None:
        """Windows go by the wall clock, limits by one that is never set."""
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self._parties: dict[tuple[str, str | None], Party] = {}
        self._told: set[tuple[Party, Budget, int]] = set()

    def seed(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
        """What was settled before: (UTC day, tenant, key id, tokens, cost), as the ledger's `daily_totals` has it."""
        for day, tenant, key_id, num_tokens, cost in rows:
            for party in (self._party(tenant, key_id), self._party(tenant)):
                party.spending.add(day, num_tokens, cost)

    def peek(self, caller: Caller, fingerprint: int | None = None) -> None:
        """Refuses before the text is read what cannot be admitted now, whatever the text. Raises what `admit` raises."""
        parties = self._parties_of(caller)
        day = self._wall_ms() // DAY_MS
        for party, policy in parties:
            for budget in policy.budgets:
                if budget.hard and budget.unit == "tokens":
                    left = budget.amount - party.spending.sum(budget.window, day).tokens
                    if left < 1:
                        raise budget_exceeded(party.name, budget, left, 1, day)
        if fingerprint is not None and all(policy.tokens_per_minute is None for _, policy in parties):
            self._refuse(parties, Ask((caller.key_id, fingerprint), self._steady_ms(), None))

    async def admit(
        self,
        caller: Caller,
        *,
        prompt_tokens: int,
        max_completion_tokens: int,
        can_clamp: bool,
        cost: Cost | None,
        num_choices: int = 1,
        fingerprint: Hashable = None,
    ) -> Hold:
        """Holds the most that the request may come to, of every limit and budget of key and tenant, or of none.

        `max_completion_tokens` is for all of `num_choices` together, and clamped to a multiple of that. `cost` is None
        where the model has no price. `fingerprint` tells the same request again from others. Raises `RateLimited`,
        `QuotaExceeded`.
        """
        parties = self._parties_of(caller)
        at = self._wall_ms()
        if caller.key_policy.budgets or caller.tenant_policy.budgets:
            max_completion_tokens = self._afford(
                parties, at // DAY_MS, prompt_tokens, max_completion_tokens, num_choices if can_clamp else None, cost
            )
        tokens = prompt_tokens + max_completion_tokens
        if not can_clamp:
            for party, policy in parties:
                if (limit := policy.tokens_per_minute) is not None and tokens > limit:
                    raise too_large(party.name, tokens, limit)
        if fingerprint is None:
            fingerprint = (prompt_tokens, max_completion_tokens)
        ask = Ask((caller.key_id, fingerprint), self._steady_ms(), tokens)
        self._refuse(parties, ask)
        held_cost = 0 if cost is None else cost(max_completion_tokens)
        for party, _ in parties:
            party.limits.take(ask)
            party.spending.add(at // DAY_MS, tokens, held_cost)
        return Hold(
            parties,
            at=at,
            began=ask.now,
            prompt_tokens=prompt_tokens,
            max_completion_tokens=max_completion_tokens,
            cost=held_cost,
            headers=limit_headers(party.limits for party, _ in parties),
            steady_ms=self._steady_ms,
        )

    def _afford(
        self,
        parties: Parties,
        day: int,
        prompt_tokens: int,
        completion_tokens: int,
        step: int | None,
        cost: Cost | None,
    ) -> int:
        """As many completion tokens as all hard budgets pay for, a multiple of `step`; all of them where it is None."""
        floor = completion_tokens if step is None else step
        for party, policy in parties:
            for budget in policy.budgets:
                if budget.unit == "money" and cost is None:
                    if budget.hard:
                        raise unpriced(party.name)
                    continue
                left = budget.amount - party.spending.sum(budget.window, day).of(budget.unit)
                if not budget.hard:
                    if need_of(budget, prompt_tokens, completion_tokens, cost) > left:
                        self._tell(party, budget, day)
                    continue
                completion_tokens = affordable(budget, left, prompt_tokens, completion_tokens, cost)
                if completion_tokens < floor:
                    need = need_of(budget, prompt_tokens, floor, cost)
                    raise budget_exceeded(party.name, budget, left, need, day)
        return completion_tokens if step is None else completion_tokens // step * step

    def _refuse(self, parties: Parties, ask: Ask) -> None:
        """Raises `RateLimited` where a limit refuses, and promises what it tells."""
        refusals = [party.limits.refusal(policy, ask) for party, policy in parties]
        longest: tuple[Refusal, Party, Policy] | None = None
        for refusal, (party, policy) in zip(refusals, parties, strict=True):
            if refusal is not None and (longest is None or refusal.wait_ms > longest[0].wait_ms):
                longest = refusal, party, policy
        if longest is None:
            return
        refusal, party, policy = longest
        retry_s = math.ceil(refusal.wait_ms / 1000)
        for (other, _), its in zip(parties, refusals, strict=True):
            other.limits.promise(ask, ask.now + retry_s * 1000, refused=its is not None)
        raise rate_limited(party.name, policy, refusal.limit, retry_s, limit_headers(one.limits for one, _ in parties))

    def _tell(self, party: Party, budget: Budget, day: int) -> None:
        """One line for each window of a soft budget that is exceeded."""
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
