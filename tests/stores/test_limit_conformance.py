"""Rate limits and concurrency: the same whether one server counts or several do in Redis."""

from __future__ import annotations

import asyncio

import pytest

from forebay.tenants.guard import Guard
from forebay.types import Policy
from support.guards import Clock, ask, caller, refused


async def test_a_minutes_requests_may_come_at_once(guard: Guard) -> None:
    """As many as the limit; the next one is refused, and told whose limit it is and when it ends."""
    who = caller(Policy(requests_per_minute=6))
    for left in range(5, -1, -1):
        headers = (await ask(guard, who)).headers
        assert headers["x-ratelimit-limit-requests"] == "6"
        assert headers["x-ratelimit-remaining-requests"] == str(left)
    assert headers["x-ratelimit-reset-requests"] == "1m0s"
    error = await refused(guard, who)
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.message == "Rate limit reached for key: 6 requests per minute. Try again in 10 s."
    assert error.retry_after_s == 10
    assert error.headers["retry-after-ms"] == "10000"
    assert error.headers["x-ratelimit-remaining-requests"] == "0"


async def test_each_of_those_refused_at_once_has_a_time_of_its_own(guard: Guard, clock: Clock) -> None:
    """Whoever comes back as told is let in, and a newcomer finds nothing that was promised to others."""
    who = caller(Policy(requests_per_minute=6))
    for _ in range(6):
        await ask(guard, who)
    waits = [(await refused(guard, who, fingerprint=-number)).retry_after_s for number in range(4)]
    assert waits == [10, 20, 30, 40]
    for number in range(4):
        clock.forward(10)
        assert (await refused(guard, who)).retry_after_s == 40
        await ask(guard, who, fingerprint=-number)


async def test_who_comes_too_early_is_told_again(guard: Guard, clock: Clock) -> None:
    """And keeps what was promised first."""
    who = caller(Policy(requests_per_minute=1))
    await ask(guard, who)
    assert (await refused(guard, who, fingerprint=-1)).retry_after_s == 60
    clock.forward(30)
    assert (await refused(guard, who, fingerprint=-1)).retry_after_s == 90
    clock.forward(30)
    await ask(guard, who, fingerprint=-1)


async def test_a_promise_that_nobody_takes_lapses(guard: Guard, clock: Clock) -> None:
    """Two seconds after its time what was set aside is for whoever asks."""
    who = caller(Policy(requests_per_minute=6))
    for _ in range(6):
        await ask(guard, who)
    for _ in range(3):
        await refused(guard, who)
    clock.forward(12)
    await refused(guard, who)
    clock.forward(0.001)
    await ask(guard, who)
    await refused(guard, who)


async def test_promises_are_the_keys_that_got_them(guard: Guard, clock: Clock) -> None:
    """The same request of another key of the tenant does not take it."""
    first, second = (caller(None, Policy(requests_per_minute=1), key_id=name) for name in ("first", "second"))
    await ask(guard, first)
    error = await refused(guard, first, fingerprint=-1)
    assert "for tenant: 1 requests per minute" in error.message
    clock.forward(60)
    await refused(guard, second, fingerprint=-1)
    await ask(guard, first, fingerprint=-1)


async def test_limits_refill_without_steps(guard: Guard, clock: Clock) -> None:
    """60 a minute is one a second, also for a key that has used them all."""
    who = caller(Policy(requests_per_minute=60))
    for _ in range(60):
        await ask(guard, who)
    for _ in range(5):
        clock.forward(1)
        await ask(guard, who)
    clock.forward(3600)
    assert (await ask(guard, who)).headers["x-ratelimit-remaining-requests"] == "59"


async def test_tokens_are_held_and_given_back(guard: Guard) -> None:
    """What a request may come to is held; what it did not use is there at once."""
    who = caller(Policy(tokens_per_minute=250))
    first = await ask(guard, who)
    assert first.headers["x-ratelimit-remaining-tokens"] == "150"
    await ask(guard, who)
    error = await refused(guard, who)
    assert error.message == "Rate limit reached for key: 250 tokens per minute. Try again in 12 s."
    first.settle(30, 0)
    headers = (await ask(guard, who, 10, 10)).headers
    assert headers["x-ratelimit-remaining-tokens"] == "50"
    assert headers["x-ratelimit-limit-tokens"] == "250"


async def test_what_can_never_fit_is_told_so(guard: Guard) -> None:
    """A limit of tokens that the client itself exceeds: no time to come back, for none would do."""
    who = caller(Policy(tokens_per_minute=50), Policy(tokens_per_minute=500))
    error = await refused(guard, who)
    assert "too large for key: requested 100 tokens, limit 50 tokens per minute" in error.message
    assert error.retry_after_s is None
    assert error.headers == {"x-should-retry": "false"}


async def test_who_names_no_limit_holds_what_there_can_be(guard: Guard, clock: Clock) -> None:
    """A whole minute's tokens where the answer might come to more; used beyond that, they are paid for later."""
    who = caller(Policy(tokens_per_minute=60))
    hold = await ask(guard, who, can_clamp=True)
    assert hold.max_completion_tokens == 90
    assert hold.headers["x-ratelimit-remaining-tokens"] == "0"
    hold.settle(90, 0)
    assert (await refused(guard, who, 5, 5)).retry_after_s == 40
    clock.forward(40)
    await refused(guard, who, 5, 5)


async def test_large_requests_are_not_starved_by_small_ones(guard: Guard, clock: Clock) -> None:
    """While one waits for many tokens, few do not slip past it."""
    who = caller(Policy(tokens_per_minute=600))
    await ask(guard, who, 10, 590)
    assert (await refused(guard, who, 10, 590, fingerprint=-1)).retry_after_s == 60
    clock.forward(30)
    assert (await refused(guard, who, 5, 5)).retry_after_s == 31
    clock.forward(30)
    await ask(guard, who, 10, 590, fingerprint=-1)


async def test_the_tighter_of_key_and_tenant_counts(guard: Guard) -> None:
    """Headers tell of it; what one refuses is taken from neither."""
    key, tenant = Policy(requests_per_minute=3), Policy(requests_per_minute=2)
    headers = (await ask(guard, caller(key, tenant))).headers
    assert headers["x-ratelimit-limit-requests"] == "2"
    await ask(guard, caller(key, tenant))
    assert "for tenant" in (await refused(guard, caller(key, tenant))).message
    headers = (await ask(guard, caller(key, Policy()))).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("3", "0")


async def test_a_changed_limit_counts_at_once(guard: Guard) -> None:
    """Lowered, what was left is cut to it; lifted, nothing is limited."""
    await ask(guard, caller(Policy(requests_per_minute=100)))
    headers = (await ask(guard, caller(Policy(requests_per_minute=5)))).headers
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert (await ask(guard, caller())).headers == {}


async def test_requests_at_a_time(guard: Guard) -> None:
    """A place is free once its request has ended."""
    who = caller(Policy(max_concurrency=2))
    first, _ = await ask(guard, who), await ask(guard, who)
    error = await refused(guard, who)
    assert error.message.startswith("Rate limit reached for key: 2 requests at a time.")
    assert error.retry_after_s is not None
    assert error.retry_after_s >= 1
    assert "x-ratelimit-limit-requests" not in error.headers
    first.settle(0, 0)


async def test_a_place_is_kept_for_who_comes_back(guard: Guard, clock: Clock) -> None:
    """He waits for it here if it is not free in time; newcomers do not get it."""
    who = caller(Policy(max_concurrency=1))
    hold = await ask(guard, who)
    error = await refused(guard, who, fingerprint=-1)
    clock.forward(error.retry_after_s or 0)
    waiting = asyncio.ensure_future(ask(guard, who, fingerprint=-1))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    hold.settle(0, 0)
    clock.forward(0.001)
    later = await asyncio.wait_for(waiting, 5)
    later.settle(0, 0)


async def test_waiting_for_a_place_has_an_end(guard: Guard, clock: Clock) -> None:
    """A request that lasts much longer than others do makes those wait no more than that."""
    who = caller(Policy(max_concurrency=1))
    await ask(guard, who)
    error = await refused(guard, who, fingerprint=-1)
    clock.forward(error.retry_after_s or 0)
    waiting = asyncio.ensure_future(refused(guard, who, fingerprint=-1))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    for _ in range(70):
        clock.forward(1)
        await asyncio.sleep(0.002)
    assert (await asyncio.wait_for(waiting, 5)).retry_after_s


async def test_settling_twice_gives_back_once(guard: Guard) -> None:
    """Whoever settles second changes nothing."""
    who = caller(Policy(tokens_per_minute=100, max_concurrency=1))
    hold = await ask(guard, who)
    hold.settle(40, 0)
    hold.settle(0, 0)
    headers = (await ask(guard, who, 5, 5)).headers
    assert headers["x-ratelimit-remaining-tokens"] == "50"
    await refused(guard, who, 5, 5)


async def test_a_cancelled_request_holds_nothing(guard: Guard) -> None:
    """Whenever its client leaves."""
    who = caller(Policy(tokens_per_minute=6000, max_concurrency=20))
    asked = [asyncio.ensure_future(ask(guard, who)) for _ in range(10)]
    await asyncio.sleep(0)
    for one in asked[::2]:
        one.cancel()
    for hold in await asyncio.gather(*asked, return_exceptions=True):
        if not isinstance(hold, BaseException):
            hold.settle(0, 0)
    headers = (await ask(guard, who)).headers
    assert headers["x-ratelimit-remaining-tokens"] == "5900"


@pytest.mark.parametrize("guard", ["embedded"], indirect=True)
async def test_a_look_before_the_text_is_read(guard: Guard, clock: Clock) -> None:
    """What is refused whatever its text is not read; its promise is the same."""
    who = caller(Policy(requests_per_minute=1))
    guard.peek(who, 1)
    await ask(guard, who)
    with pytest.raises(Exception, match="1 requests per minute") as caught:
        guard.peek(who, -1)
    assert caught.value.retry_after_s == 60
    clock.forward(60)
    with pytest.raises(Exception, match="1 requests per minute"):
        guard.peek(who, -2)
    guard.peek(who, -1)
    await ask(guard, who, fingerprint=-1)
