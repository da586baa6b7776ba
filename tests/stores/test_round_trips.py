"""How often Redis is asked, by its own count (docs/limits.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from forebay.tenants.conversation import BEAT_S, MAX_ASKS
from forebay.types import Budget, Policy
from support.administrator import OWNER
from support.fleet import limit_tenant
from support.guards import Replica, ask, becomes, caller, refused, shared_guard
from support.redis import RedisProcess

NUM = 60
WHO = caller(
    Policy(
        requests_per_minute=10_000,
        tokens_per_minute=10_000_000,
        max_concurrency=1_000,
        budgets=(Budget(10**9, "tokens", "day"), Budget(10**9, "tokens", "month", hard=False)),
    )
)


class Count:
    """Scripts that Redis was sent since, and how many of them may have been no request's."""

    def __init__(self, redis: RedisProcess, num_servers: int = 1) -> None:
        self._redis = redis
        self._num_servers = num_servers
        self._began = time.monotonic()
        self._before = self._sent()

    def _sent(self) -> int:
        with self._redis.client() as client:
            stats: Any = client.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))

    def now(self) -> tuple[int, int]:
        sent = self._sent() - self._before
        return sent, self._num_servers * (int((time.monotonic() - self._began) / BEAT_S) + 1)


@pytest_asyncio.fixture
async def replica(redis: RedisProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Replica]:
    made = shared_guard(redis.url, tmp_path, prefix=prefix)
    try:
        await becomes(lambda: made.conversation.is_open)
        (await ask(made.guard, WHO)).settle(0, 0)
        await asyncio.sleep(0.05)
        yield made
    finally:
        await made.close()


async def test_one_after_the_other_each_is_one(replica: Replica, redis: RedisProcess) -> None:
    """Three limits and two budgets at a time; what one gives back goes along with the next."""
    count = Count(redis)
    for _ in range(NUM):
        (await ask(replica.guard, WHO)).settle(50, 0)
    await asyncio.sleep(0.05)
    sent, idle = count.now()
    assert NUM < sent <= NUM + 1 + idle


async def test_those_that_come_together_share_one(replica: Replica, redis: RedisProcess) -> None:
    """And those that end together."""
    count = Count(redis)
    holds = await asyncio.gather(*(ask(replica.guard, WHO) for _ in range(MAX_ASKS)))
    for hold in holds:
        hold.settle(50, 0)
    await asyncio.sleep(0.05)
    sent, idle = count.now()
    assert 2 <= sent <= 2 + idle


async def test_who_is_refused_costs_no_more(replica: Replica, redis: RedisProcess) -> None:
    """One round trip that says so; there is nothing to give back."""
    count = Count(redis)
    for _ in range(NUM):
        await refused(replica.guard, caller(Policy(tokens_per_minute=50)), 10, 90)
    sent, idle = count.now()
    assert sent <= NUM + idle


async def test_a_request_through_the_door_is_at_most_two(four: Any) -> None:
    """Let in, and given back: whatever else a server does with Redis, it does not do for each request."""
    limit_tenant(four.servers, "default", requests_per_minute=100_000, tokens_per_minute=100_000_000)
    try:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {OWNER}"}, timeout=30) as http:
            count = Count(four.redis, num_servers=4)
            for _ in range(NUM):
                body = {"prompt": "hi", "max_tokens": 2}
                answer = await http.post(four.servers[0].url + "/v1/completions", json=body)
                assert (answer.status_code, "x-ratelimit-limit-tokens" in answer.headers) == (200, True)
            await asyncio.sleep(0.05)
            sent, idle = count.now()
            assert NUM <= sent <= 2 * NUM + idle
    finally:
        limit_tenant(four.servers, "default")
