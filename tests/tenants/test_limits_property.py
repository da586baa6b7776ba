"""Buckets and promises under any order of requests: never more than the limit, and every promise kept."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

import hypothesis.strategies as st
from hypothesis import given, settings

from forebay.errors import RateLimited
from forebay.tenants.promises import EARLY_MS, GRACE_MS
from forebay.types import Policy
from support.guards import Clock, ask, caller, local_guard

RATE = 120
LATE_MS = 1_000 + GRACE_MS + EARLY_MS
"""What a promise may be late, whole seconds and grace, so many of the refill of a minute may come on top of it."""
BATCHES = st.lists(
    st.tuples(
        st.integers(0, 20_000),  # ms since the last one
        st.lists(
            st.tuples(st.integers(1, RATE), st.integers(0, 100)), min_size=1, max_size=4
        ),  # tokens, % of them used
    ),
    max_size=25,
)


@given(
    batches=BATCHES,
    requests=st.one_of(st.none(), st.integers(1, 30)),
    tenant_tokens=st.one_of(st.none(), st.integers(RATE, 3 * RATE)),
    stays_away=st.sets(st.integers(0, 60)),
)
@settings(max_examples=150, deadline=None)
def test_no_more_than_the_limit_and_every_promise_kept(
    batches: list[tuple[int, list[tuple[int, int]]]],
    requests: int | None,
    tenant_tokens: int | None,
    stays_away: set[int],
) -> None:
    """In any stretch of time at most a minute's worth and what it refills; who comes back on time is let in, unless
    another limit, of which nothing was promised, has meanwhile been used up."""
    asyncio.run(_play(batches, requests, tenant_tokens, stays_away))


async def _play(
    batches: list[tuple[int, list[tuple[int, int]]]],
    requests: int | None,
    tenant_tokens: int | None,
    stays_away: set[int],
) -> None:
    clock = Clock(steady=0)
    guard = local_guard(clock)
    who = caller(Policy(requests, RATE), Policy(None, tenant_tokens))
    numbers = count()
    agenda: list[tuple[int, int, int, int, bool]] = []
    now = 0
    for gap, batch in batches:
        now += gap
        for num_tokens, used in batch:
            heapq.heappush(agenda, (now, next(numbers), num_tokens, used, False))
    admitted: list[tuple[int, int, int]] = []
    while agenda:
        clock.steady, number, num_tokens, used, as_told = heapq.heappop(agenda)
        try:
            hold = await ask(guard, who, 0, num_tokens, fingerprint=number)
        except RateLimited as exc:
            if as_told and tenant_tokens is None:
                raise AssertionError("it came as told") from exc
            if number not in stays_away:
                back = clock.steady + round((exc.retry_after_s or 0) * 1000)
                heapq.heappush(agenda, (back, number, num_tokens, used, True))
        else:
            hold.settle(num_tokens * used // 100, 0)
            admitted.append((clock.steady, 1, num_tokens * used // 100))
    for begin, (first, *_) in enumerate(admitted):
        num_requests = num_tokens = 0
        for moment, one, its_tokens in admitted[begin:]:
            num_requests += one
            num_tokens += its_tokens
            refilled = (moment - first + LATE_MS) / 60_000
            assert num_tokens <= RATE * (1 + refilled)
            assert requests is None or num_requests <= requests * (1 + refilled) + 1e-9
            assert tenant_tokens is None or num_tokens <= tenant_tokens * (1 + refilled)
