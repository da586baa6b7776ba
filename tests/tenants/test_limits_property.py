"""Buckets and promises under any order of requests: never more than the limit, and every promise kept."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from forebay.errors import RateLimited
from forebay.tenants.promises import EARLY_MS, GRACE_MS
from forebay.types import Policy
from support.guards import Clock, ask, caller, let_rest, local_guard

RATE = 60
LATE_MS = 1_000 + GRACE_MS + EARLY_MS
"""What is promised in whole seconds, and kept for a while, may come so much later than it was there."""

ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 200, 1_000, 7_000, 20_000]),  # ms after the one before
        st.integers(1, RATE),  # tokens that it may come to
        st.integers(0, 100),  # the part of them that it comes to, in %
        st.sampled_from([True, True, True, False]),  # whether it comes back where it is told to
    ),
    max_size=40,
)


@dataclass(frozen=True)
class Admitted:
    at: int
    tokens: int


@dataclass
class Played:
    admitted: list[Admitted]
    num_as_told: int = 0
    num_kept: int = 0


async def play(arrivals: list[tuple[int, int, int, bool]], key: Policy, tenant: Policy) -> Played:
    """What a guard makes of them that keeps nobody ready who may rest. The times of what is admitted never fall."""
    clock = Clock(steady=0)
    guard, who = local_guard(clock, num_ready=0), caller(key, tenant)
    numbers = count()
    agenda: list[tuple[int, int, int, int, bool, bool]] = []
    now = 0
    for gap, num_tokens, percent, comes_back in arrivals:
        now += gap
        heapq.heappush(agenda, (now, next(numbers), num_tokens, percent, comes_back, False))
    played = Played([])
    while agenda:
        clock.steady, number, num_tokens, percent, comes_back, as_told = heapq.heappop(agenda)
        played.num_as_told += as_told
        let_rest(guard)
        try:
            hold = await ask(guard, who, 0, num_tokens, fingerprint=number)
        except RateLimited as exc:
            if comes_back:
                back = clock.steady + round((exc.retry_after_s or 0) * 1000)
                heapq.heappush(agenda, (back, number, num_tokens, percent, True, True))
        else:
            used = num_tokens * percent // 100
            hold.settle(used, 0)
            played.num_kept += as_told
            played.admitted.append(Admitted(clock.steady, used))
    return played


def check_bound(admitted: list[Admitted], limit: int, amount: Callable[[Admitted], int]) -> None:
    """In every stretch of time at most a minute's worth, and what it refills."""
    for number, first in enumerate(admitted):
        total = 0
        for one in admitted[number:]:
            total += amount(one)
            assert total <= limit * (1 + (one.at - first.at + LATE_MS) / 60_000)


@pytest.mark.parametrize("key", [Policy(6), Policy(None, RATE)], ids=["requests", "tokens"])
@given(arrivals=ARRIVALS)
@settings(max_examples=120, deadline=None)
def test_one_limit(key: Policy, arrivals: list[tuple[int, int, int, bool]]) -> None:
    """Never exceeded, and whoever comes back as told is let in, every time."""
    played = asyncio.run(play(arrivals, key, Policy()))
    assert played.num_kept == played.num_as_told
    if key.requests_per_minute is not None:
        check_bound(played.admitted, key.requests_per_minute, lambda one: 1)
    if key.tokens_per_minute is not None:
        check_bound(played.admitted, key.tokens_per_minute, lambda one: one.tokens)


@given(
    arrivals=ARRIVALS,
    requests=st.integers(1, 10),
    tenant=st.builds(Policy, st.none() | st.integers(1, 10), st.none() | st.integers(RATE, 2 * RATE)),
)
@settings(max_examples=120, deadline=None)
def test_limits_together(arrivals: list[tuple[int, int, int, bool]], requests: int, tenant: Policy) -> None:
    """None lets in more than it began with and was refilled. Two limits of one key keep their promises together."""
    key = Policy(requests, RATE)
    played = asyncio.run(play(arrivals, key, tenant))
    if tenant == Policy():
        assert played.num_kept == played.num_as_told
    for policy in (key, tenant):
        num_requests = num_tokens = 0
        for one in played.admitted:
            num_requests, num_tokens = num_requests + 1, num_tokens + one.tokens
            minutes = 1 + (one.at + EARLY_MS) / 60_000
            assert policy.requests_per_minute is None or num_requests <= policy.requests_per_minute * minutes
            assert policy.tokens_per_minute is None or num_tokens <= policy.tokens_per_minute * minutes
