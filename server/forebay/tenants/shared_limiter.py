"""Limits and budgets shared with other servers through Redis, and what holds while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay.errors import ApiError
from forebay.tenants.ask import Ask, Claim, Hold
from forebay.tenants.buckets import UNIT
from forebay.tenants.conversation import Conversation
from forebay.tenants.exchange import LetIn, Pending, held_of, meter_of, read
from forebay.tenants.limit_errors import budget_closed, budget_exceeded
from forebay.tenants.local_limiter import LocalLimiter
from forebay.tenants.news import Refund
from forebay.tenants.parties import Party, Standing
from forebay.tenants.windows import DAY_MS


class SharedLimiter:
    """Redis decides, on many requests at a time.

    While it is away, this server admits its share of each limit. Of a hard budget it then grants what it holds beyond
    its need, and where that is too little the budget is closed.
    """

    keeps_parties = True

    def __init__(self, conversation: Conversation, *, wall_ms: Callable[[], int], steady_ms: Callable[[], int]) -> None:
        self._conversation = conversation
        self._wall_ms = wall_ms
        self._grants = conversation.grants
        self._local = LocalLimiter(steady_ms)
        self._alone = _Alone(self, self._local)
        self._steady_ms = steady_ms

    def begin(self, parties: Callable[[], Iterable[Party]]) -> None:
        self._conversation.begin(parties, self._decide)

    async def close(self) -> None:
        await self._conversation.close()

    def families(self) -> list[Metric]:
        conversation = self._conversation
        return [
            GaugeMetricFamily(
                "forebay_redis_up", "1: Redis answers; 0: the breaker is open.", value=conversation.is_up
            ),
            CounterMetricFamily(
                "forebay_redis_exchanges", "Exchanges with Redis that were answered.", value=conversation.num_exchanges
            ),
            CounterMetricFamily(
                "forebay_redis_failures", "Exchanges with Redis that failed.", value=conversation.breaker.num_failures
            ),
            GaugeMetricFamily(
                "forebay_shared_budgets_open",
                "1: what is left of shared budgets is known.",
                value=conversation.is_open,
            ),
            GaugeMetricFamily(
                "forebay_replicas", "Servers that share Redis, as last heard.", value=conversation.fleet.state.num_alive
            ),
        ]

    def peek(self, standing: Standing, whose: Hashable) -> None:
        """While Redis is there, it alone knows."""
        if not self._conversation.is_up:
            self._local.num_shares = self._conversation.fleet.num_shares
            self._local.peek(standing, whose)

    async def admit(self, ask: Ask) -> Hold | None:
        if not ask.claims and not ask.standing.is_limited:
            return self._local.admit_now(ask, None, self._local)
        if not self._conversation.is_up:
            return self._admit_alone(ask)
        done: asyncio.Future[Hold | None] = asyncio.get_running_loop().create_future()
        self._conversation.ask(Pending(ask, self._grants.of_all(ask), done))
        try:
            return await done
        except asyncio.CancelledError:
            if done.done() and not done.cancelled() and done.exception() is None and (hold := done.result()):
                hold.settle(0, 0)
            raise

    def ended(self, hold: Hold, num_tokens: int) -> None:
        ask, now = hold.ask, self._steady_ms()
        refunds = []
        for party in ask.standing.parties:
            party.limits.leave(ask.now, now)
        for (party, policy), held in zip(ask.standing.limited, hold.held, strict=True):
            if held:
                refunds.append((*meter_of(party, policy), held - num_tokens * UNIT))
        self.say_ended(ask, refunds)

    def say_ended(self, ask: Ask, refunds: Iterable[Refund]) -> None:
        self._conversation.ended(self._grants.of_all(ask), _with_places(ask), refunds)

    def _decide(self, pending: Pending, answer: Sequence[int] | None) -> None:
        if answer is None and pending.can_repeat and self._conversation.is_up and not pending.done.done():
            pending.can_repeat = False
            self._conversation.ask(pending)
            return
        decision: Hold | Exception | None
        try:
            decision = self._decided(pending, answer)
        except Exception as exc:
            decision = exc
        done = pending.done
        if done.done():  # the client has left meanwhile
            if isinstance(decision, Hold):
                decision.settle(0, 0)
        elif isinstance(decision, Exception):
            done.set_exception(decision)
        else:
            done.set_result(decision)

    def _decided(self, pending: Pending, answer: Sequence[int] | None) -> Hold | ApiError | None:
        ask = pending.ask
        decision = None if answer is None else read(pending, answer)
        if answer is None or isinstance(decision, Claim):
            return self._admit_alone(ask)
        if not isinstance(decision, LetIn):
            return decision
        for grant, more in zip(pending.grants, decision.more, strict=True):
            grant.amount += more
        for claim, short in zip(ask.claims, decision.short, strict=True):
            if short and not claim.budget.hard:
                self._local.tell(claim, ask.day)
        for party in ask.standing.parties:
            party.limits.enter(ask.now)
        self._conversation.in_places.update(_with_places(ask))
        if (at := self._wall_ms()) // DAY_MS == ask.day:
            ask.at = at  # others may have given back meanwhile what it holds now
        held = [held_of(policy, ask.tokens) for _, policy in ask.standing.limited]
        return ask.hold(self, decision.granted, held, decision.headers)

    def _admit_alone(self, ask: Ask) -> Hold | None:
        """Raises `RateLimited`, `QuotaExceeded`, `BudgetUnavailable`."""
        granted = []
        for claim, grant in zip(ask.claims, self._grants.of_all(ask), strict=True):
            budget = claim.budget
            if budget.hard and grant.left < claim.floor:
                if budget.amount - grant.used < claim.floor:
                    raise budget_exceeded(claim.party.name, budget, budget.amount - grant.used, claim.floor, ask.day)
                raise budget_closed(claim.party.name, budget)
            granted.append(min(claim.need, grant.left) if budget.hard else claim.need)
        self._local.num_shares = self._conversation.fleet.num_shares
        hold = self._local.admit_now(ask, granted, self._alone)
        if hold is not None:
            self._conversation.in_places.update(_with_places(ask))
        return hold


class _Alone:
    """Where requests end that were let in without Redis."""

    def __init__(self, shared: SharedLimiter, local: LocalLimiter) -> None:
        self._shared = shared
        self._local = local

    def ended(self, hold: Hold, num_tokens: int) -> None:
        self._local.ended(hold, num_tokens)
        self._shared.say_ended(hold.ask, ())


def _with_places(ask: Ask) -> list[Party]:
    return [party for party, policy in ask.standing.limited if policy.max_concurrency is not None]
