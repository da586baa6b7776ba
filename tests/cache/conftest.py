"""Stores of the cache, each empty, with a clock that tests set; one Redis 8 for all, with a prefix for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from forebay.cache.index import Index
from forebay.cache.stores.base import CacheStore, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.redis_impl.store import RedisStore
from forebay.cache.stores.sqlite_impl import SqliteStore
from forebay.stores.redis_impl.link import RedisLink
from support.cache_stores import Clock, Stores
from support.cached import Asker
from support.redis import RedisProcess, redis_8
from support.server import ServerProcess

_prefixes = count()
_questions = count()


@pytest.fixture(scope="module")
def asker(server: ServerProcess) -> Iterator[Asker]:
    """Of the module's own server."""
    with closing(Asker(server)) as made:
        yield made


@pytest.fixture
def question() -> str:
    """One that nobody has asked before."""
    return f"Question number {next(_questions)}?"


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """Of version 8. Leave it running and unharmed; names that begin with `prefix` are the test's own."""
    running = redis_8(tmp_path_factory.mktemp("redis8")).start()
    yield running
    running.stop()


@pytest.fixture
def prefix() -> str:
    return f"cache{next(_prefixes)}:"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture(params=["memory", "sqlite", "redis"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, prefix: str) -> AsyncIterator[Stores]:
    def memory(quotas: Quotas) -> CacheStore:
        return MemoryStore(quotas, clock, index=Index())

    def sqlite(quotas: Quotas) -> CacheStore:
        return SqliteStore(tmp_path, quotas, clock, index=Index())

    def redis(quotas: Quotas) -> CacheStore:
        running: RedisProcess = request.getfixturevalue("redis")
        return RedisStore(RedisLink(running.url, prefix, 5.0), quotas, clock)

    making = Stores({"memory": memory, "sqlite": sqlite, "redis": redis}[request.param], clock)
    yield making
    for store in making.made:
        await store.close()


@pytest.fixture
def store(stores: Stores) -> CacheStore:
    return stores()
