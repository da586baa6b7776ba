"""One real Redis for all, with a prefix for each test; guards that count alone and guards that share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from forebay.tenants.guard import Guard
from support.fleet import fleet
from support.guards import Clock, becomes, local_guard, shared_guard
from support.redis import RedisProcess
from support.server import ServerProcess

_prefixes = count()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """Leave it running and unharmed; names that begin with `prefix` are the test's own."""
    running = RedisProcess(tmp_path_factory.mktemp("redis")).start()
    yield running
    running.stop()


@dataclass(frozen=True)
class Fleet:
    """Servers and the Redis that they share, which may be harmed, and then has to be healed."""

    servers: list[ServerProcess]
    redis: RedisProcess


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four servers with one key of their settings, `OWNER`. Leave tenant `default` without limits."""
    folder = tmp_path_factory.mktemp("fleet")
    redis = RedisProcess(folder / "redis").start()
    try:
        with fleet(redis, folder, 4) as servers:
            yield Fleet(servers, redis)
    finally:
        redis.stop()


@pytest.fixture
def prefix() -> str:
    return f"test{next(_prefixes)}:"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["embedded", "redis"])
async def guard(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, prefix: str) -> AsyncIterator[Guard]:
    """Counting by `clock`, in this process or in Redis."""
    if request.param == "embedded":
        yield local_guard(clock)
        return
    redis: RedisProcess = request.getfixturevalue("redis")
    replica = shared_guard(redis.url, tmp_path, prefix=prefix, clock=clock)
    try:
        await becomes(lambda: replica.conversation.is_open)
        yield replica.guard
    finally:
        await replica.close()
