"""What is kept of keys and tenants that ask no more, and what comes of them when they do."""

from __future__ import annotations

import tracemalloc

import pytest

from forebay.errors import QuotaExceeded, RateLimited
from forebay.tenants.guard import Guard
from forebay.types import Caller, Policy
from support.guards import DAY_MS, NOON, Clock, ask, caller, let_rest, local_guard, refused, tokens

PERSONS = 3000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(clock: Clock) -> Guard:
    """Keeps nobody ready who may rest."""
    return local_guard(clock, num_ready=0)


def rest(guard: Guard, clock: Clock) -> None:
    clock.forward(60)
    let_rest(guard)


async def test_who_asks_no_more_takes_little_room(clock: Clock) -> None:
    """Persons of an identity provider are keys without end. Those of the last minute are ready, and some more."""
    guard = local_guard(clock)
    everything = Policy(600, 60_000, 8, budgets=tokens(10_000).budgets)

    async def persons(first: int) -> None:
        for number in range(first, first + PERSONS):
            clock.forward(0.1)
            (await ask(guard, caller(everything, key_id=f"jwt:{number}"))).settle(50, 0)

    tracemalloc.start()
    await persons(0)
    before, _ = tracemalloc.get_traced_memory()
    await persons(PERSONS)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert guard.parties.num_awake < 2000
    assert after - before < 450 * PERSONS


async def test_what_was_spent_stays_spent(guard: Guard, clock: Clock) -> None:
    """In the windows of its days, also for a clock that is set back, and by the key as by its tenant."""
    who = caller(tokens(300, "month"), tokens(250))
    (await ask(guard, who)).settle(100, 0)
    clock.wall += DAY_MS
    (await ask(guard, who)).settle(100, 0)
    rest(guard, clock)
    with pytest.raises(QuotaExceeded, match="monthly budget of 300 tokens has 100 tokens left"):
        await ask(guard, who, 10, 91)
    rest(guard, clock)
    clock.wall = NOON
    with pytest.raises(QuotaExceeded, match="daily budget of 250 tokens has 150 tokens left"):
        await ask(guard, caller(None, tokens(250), key_id="another"), 10, 141)


async def test_who_still_runs_is_not_forgotten(guard: Guard, clock: Clock) -> None:
    """Neither its place nor what it holds, however long it takes."""
    who = caller(Policy(max_concurrency=1, budgets=tokens(150).budgets), Policy(max_concurrency=1))
    hold = await ask(guard, who)
    for _ in range(3):
        rest(guard, clock)
    assert "1 requests at a time" in (await refused(guard, who, 10, 10)).message
    hold.settle(30, 0)
    await ask(guard, caller(tokens(150), Policy(max_concurrency=1)), 10, 110)


@pytest.mark.parametrize("policy", [Policy(1), Policy(None, 100)], ids=["requests", "tokens"])
async def test_who_was_told_to_come_back_is_let_in(guard: Guard, clock: Clock, policy: Policy) -> None:
    """After minutes, as he was told; and what is not whole again by then is kept."""
    who, others = caller(policy), caller(policy, key_id="other")
    await ask(guard, others)
    await ask(guard, who)
    for number in (-1, -2):
        await refused(guard, who, fingerprint=number)
    rest(guard, clock)
    await ask(guard, others)
    await ask(guard, who, fingerprint=-1)
    rest(guard, clock)
    await refused(guard, who)
    await ask(guard, who, fingerprint=-2)


async def test_who_owes_pays_first(guard: Guard, clock: Clock) -> None:
    """More was used than was held: a minute does not make up for three."""
    who = caller(Policy(tokens_per_minute=100))
    (await ask(guard, who)).settle(400, 0)
    rest(guard, clock)
    with pytest.raises(RateLimited):
        await ask(guard, who)


async def test_limits_begin_anew_where_they_were_lifted(guard: Guard, clock: Clock) -> None:
    """Nothing is left of what was promised under them."""
    limited, free = caller(Policy(1)), caller()
    await ask(guard, limited)
    await refused(guard, limited, fingerprint=-1)
    await ask(guard, free)
    assert (await ask(guard, limited)).headers["x-ratelimit-remaining-requests"] == "0"
    clock.forward(120)
    assert (await ask(guard, limited)).headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_changed_budget_counts_what_was_spent_before(guard: Guard) -> None:
    """Whichever policy was in force."""
    (await ask(guard, caller())).settle(100, 0)
    (await ask(guard, caller(tokens(1000)))).settle(100, 0)
    with pytest.raises(QuotaExceeded, match="total budget of 250 tokens has 50 tokens left"):
        await ask(guard, caller(tokens(250, "total")))


async def test_headers_are_what_is_sent(guard: Guard) -> None:
    """As text, too."""
    hold = await ask(guard, Caller("one", "key", key_policy=Policy(60)))
    assert hold.raw_headers == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"1s"),
    ]
    assert hold.headers == {name.decode(): value.decode() for name, value in hold.raw_headers}
