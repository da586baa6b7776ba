"""Budgets: the same whether one server counts or several do in Redis."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from forebay.errors import QuotaExceeded
from forebay.tenants.guard import Guard
from forebay.types import Budget, Policy
from support.guards import DAY_MS, Clock, ask, caller, refused, tokens


async def exceeded(guard: Guard, *args: Any, **more: Any) -> QuotaExceeded:
    error = await refused(guard, *args, **more)
    assert isinstance(error, QuotaExceeded)
    return error


async def test_a_hard_budget_is_held_to_the_token(guard: Guard) -> None:
    """What requests may come to is held, what they came to stays, and not one token more is let in."""
    who = caller(tokens(250))
    first, second = await ask(guard, who), await ask(guard, who)
    error = await exceeded(guard, who)
    assert (error.status, error.type, error.code, error.can_retry) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        False,
    )
    assert error.message == (
        "The key's daily budget of 250 tokens has 50 tokens left, and this request needs up to 100 tokens. "
        "It is renewed at 2026-11-22T00:00:00Z."
    )
    assert error.retry_after_s is None
    first.settle(60, 0)
    await exceeded(guard, who, 10, 81)
    third = await ask(guard, who, 10, 80)
    await exceeded(guard, who, 0, 1)
    second.settle(0, 0)
    third.settle(90, 0)
    await ask(guard, who)
    await exceeded(guard, who, 0, 1)


async def test_exactly_as_many_as_it_pays_for(guard: Guard) -> None:
    """200 at once for a budget of 20: 20 are let in."""
    who = caller(tokens(2000))
    outcomes = await asyncio.gather(*(ask(guard, who) for _ in range(200)), return_exceptions=True)
    assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 180
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 20


async def test_who_names_no_limit_gets_what_is_left(guard: Guard) -> None:
    """At least a token for each choice, and the same for each."""
    who = caller(tokens(100))
    hold = await ask(guard, who, 10, 900, can_clamp=True, num_choices=4)
    assert hold.max_completion_tokens == 88
    hold.settle(83, 0)
    assert (await exceeded(guard, who, 14, 900, can_clamp=True, num_choices=4)).message.startswith(
        "The key's daily budget of 100 tokens has 17 tokens left, and this request needs up to 18 tokens."
    )
    assert (await ask(guard, who, 13, 900, can_clamp=True, num_choices=4)).max_completion_tokens == 4
    await exceeded(guard, who, 0, 1)


async def test_the_tightest_of_all_budgets_counts(guard: Guard) -> None:
    """Of key and tenant, of every window; refused, nothing is taken from any."""
    key = Policy(budgets=(Budget(1000, "tokens", "day"), Budget(300, "tokens", "month")))
    who = caller(key, tokens(150, "week"))
    other = caller(None, tokens(150, "week"), key_id="other")
    hold = await ask(guard, who)
    error = await exceeded(guard, who)
    assert error.message.startswith("The tenant's weekly budget of 150 tokens has 50 tokens left")
    assert error.message.endswith("It is renewed at 2026-11-23T00:00:00Z.")
    assert (await ask(guard, other, 10, 500, can_clamp=True)).max_completion_tokens == 40
    hold.settle(100, 0)
    assert "monthly budget of 300" in (await exceeded(guard, caller(key, None), 10, 191)).message
    await ask(guard, caller(key, None), 10, 190)


async def test_money(guard: Guard) -> None:
    """By what the request may cost; without an explicit limit as many tokens as can be paid for."""
    who = caller(Policy(budgets=(Budget(2_500_000, "money", "total"),)))

    def cost(num_tokens: int) -> int:
        return 100_000 + 10_000 * num_tokens

    hold = await ask(guard, who, 10, 90, cost=cost)
    assert hold.cost == 1_000_000
    error = await exceeded(guard, who, 10, 150, cost=cost)
    assert error.message == (
        "The key's total budget of 2.5 has 1.5 left, and this request needs up to 1.6. It is not renewed."
    )
    clamped = await ask(guard, who, 10, 900, cost=cost, can_clamp=True)
    assert (clamped.max_completion_tokens, clamped.cost) == (140, 1_500_000)
    clamped.settle(0, 0)
    hold.settle(100, 999_999)
    assert (await ask(guard, who, 10, 900, cost=cost, can_clamp=True)).cost == 1_500_000


async def test_money_without_a_price_is_not_spent(guard: Guard) -> None:
    """A budget in money closes for models that have no price, rather than letting them through for nothing."""
    error = await exceeded(guard, caller(Policy(budgets=(Budget(10**9, "money", "day"),))))
    assert error.message == "The key has a budget in money, and this model has no price (FOREBAY_PRICES_FILE)."
    await ask(guard, caller(Policy(budgets=(Budget(10**9, "money", "day", hard=False),))))


async def test_a_soft_budget_is_told_of_once(guard: Guard) -> None:
    """It refuses nothing; one line for each window says that it is exceeded."""
    who = caller(Policy(budgets=(Budget(150, "tokens", "day", hard=False), Budget(350, "tokens", "day"))))
    with capture_logs() as lines:
        for _ in range(3):
            await ask(guard, who)
    told = [line for line in lines if line["event"] == "soft_budget_exceeded"]
    assert [(line["whose"], line["tenant"], line["key_id"], line["window"]) for line in told] == [
        ("key", "one", "key", "day")
    ]
    await exceeded(guard, who)


WINDOWS = [
    ("day", "2026-11-21T23:59:59", "2026-11-22T00:00:00"),
    ("week", "2026-11-22T23:59:59", "2026-11-23T00:00:00"),
    ("week", "2026-12-31T12:00:00", "2027-01-04T00:00:00"),
    ("month", "2026-11-30T23:59:59", "2026-12-01T00:00:00"),
    ("month", "2028-02-29T23:59:59", "2028-03-01T00:00:00"),
    ("month", "2026-12-31T23:59:59", "2027-01-01T00:00:00"),
]


def at(moment: str) -> int:
    return round(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(("window", "last", "first"), WINDOWS)
async def test_windows_end_where_they_say(guard: Guard, clock: Clock, window: str, last: str, first: str) -> None:
    """UTC days, weeks from Monday, calendar months."""
    who = caller(tokens(100, window))
    clock.wall = at(last)
    await ask(guard, who)
    assert f"renewed at {first}Z" in (await exceeded(guard, who)).message
    clock.wall = at(first) - 1
    await exceeded(guard, who)
    clock.wall = at(first)
    await ask(guard, who)


@pytest.mark.parametrize("window", ["day", "week", "month", "total"])
async def test_clocks_that_jump_find_each_window_as_they_left_it(guard: Guard, clock: Clock, window: str) -> None:
    """Forward and back, more than once; nothing is ever reset."""
    who = caller(tokens(100, window))
    there, later = clock.wall, clock.wall + 45 * DAY_MS
    await ask(guard, who, 0, 60)
    for moment in (later, there, later, there):
        clock.wall = moment
        if window == "total" or moment == there:
            await exceeded(guard, who, 0, 41)
    clock.wall = later
    if window != "total":
        await ask(guard, who, 0, 100)
    clock.wall = there
    await ask(guard, who, 0, 40)
    await exceeded(guard, who, 0, 1)


async def test_a_request_counts_in_the_window_that_let_it_in(guard: Guard, clock: Clock) -> None:
    """Also when it ends in the next one."""
    who = caller(tokens(100))
    hold = await ask(guard, who)
    clock.wall += DAY_MS
    await ask(guard, who)
    hold.settle(70, 0)
    await exceeded(guard, who, 0, 1)
    clock.wall -= DAY_MS
    assert hold.at == clock.wall
    await ask(guard, who, 0, 30)
    await exceeded(guard, who, 0, 1)


async def test_what_was_settled_before_counts(guard: Guard, clock: Clock) -> None:
    """A restart forgets nothing: day, tenant, key, tokens and cost come from the ledger."""
    day = clock.wall // DAY_MS
    guard.seed([(day, "one", "key", 70, 0), (day - 1, "one", "key", 20, 0), (day - 60, "one", "other", 5, 0)])
    both = Policy(budgets=tuple(Budget(100, "tokens", window) for window in ("day", "month", "total")))
    assert "monthly budget" in (await exceeded(guard, caller(both), 0, 11)).message
    assert "total budget of 100 tokens has 5 tokens" in (await exceeded(guard, caller(None, both), 0, 6)).message
    await ask(guard, caller(both, both), 0, 5)


async def test_a_budget_that_comes_later_counts_from_its_windows_begin(guard: Guard) -> None:
    """What a key spent before it had a budget is known."""
    (await ask(guard, caller())).settle(70, 0)
    open_still = await ask(guard, caller(), 0, 20)
    await exceeded(guard, caller(tokens(100)), 0, 11)
    open_still.settle(0, 0)
    await ask(guard, caller(tokens(100)), 0, 30)


async def test_a_look_before_the_text_is_read(guard: Guard) -> None:
    """A budget of tokens that has none left refuses any text."""
    who = caller(tokens(100))
    guard.peek(who, 1)
    await ask(guard, who)
    with pytest.raises(QuotaExceeded, match="has 0 tokens left"):
        guard.peek(who, 1)
