"""A memory tier in front of a store, for tests, and what they wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from forebay.cache.index import Index
from forebay.cache.stores.base import CacheUnavailable, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.tiered import TieredStore
from support.cache_stores import AMPLE, Clock, Watched

TIMEOUT_S = 0.2


def memory(quotas: Quotas = AMPLE) -> MemoryStore:
    return MemoryStore(quotas, Clock(), index=Index())


@asynccontextmanager
async def tiered(lasting: Watched, front: MemoryStore | None = None) -> AsyncIterator[TieredStore]:
    store = TieredStore(memory() if front is None else front, lasting, Index())
    store.begin()
    try:
        yield store
    finally:
        await store.close()


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 8.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def has(store: Watched, entry_id: str) -> bool:
    try:
        return await store.inner.get(entry_id) is not None
    except CacheUnavailable:
        return False


async def is_away(store: TieredStore) -> bool:
    return store.reads.is_open and store.writes.is_open


async def can_be_read(store: TieredStore) -> bool:
    return not store.reads.is_open


async def is_up(store: TieredStore) -> bool:
    return not (store.reads.is_open or store.writes.is_open)
