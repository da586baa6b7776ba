"""The memory tier in front of a store: what is asked of which, and what goes on while the store is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.cache.entries import Sealed
from forebay.cache.index import Index
from forebay.cache.stores.base import CacheUnavailable, Held, Purge, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.redis_impl.store import RedisStore
from forebay.cache.stores.tiered import MAX_CALLS, MAX_WRITES, TieredStore
from forebay.stores.breaker import FAILURES
from forebay.stores.redis_impl.link import RedisLink
from support.cache_stores import AMPLE, Clock, Stores, Watched
from support.entries import embedding, sealed
from support.redis import RedisProcess, redis_8
from support.redis_faults import FAULTS
from support.tcp_proxy import TcpProxy

TIMEOUT_S = 0.2
AWAY = ("killed", "stopped", "full", "silent", "resetting", "read_only", "locked")


def memory(quotas: Quotas = AMPLE) -> MemoryStore:
    return MemoryStore(quotas, Clock(), index=Index())


@asynccontextmanager
async def tiered(lasting: Watched, front: MemoryStore | None = None) -> AsyncIterator[TieredStore]:
    store = TieredStore(memory() if front is None else front, lasting)
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


async def test_what_is_put_is_found_at_once_and_stored_soon(stores: Stores) -> None:
    """And what the store has, the memory tier keeps for the next time."""
    lasting = Watched(stores())
    async with tiered(lasting) as store:
        store.put(entry := sealed("a", vector=embedding(1)))
        assert await store.get("a") == entry
        assert lasting.calls["get"] == 0
        await eventually(lambda: _has(lasting, "a"))
        await lasting.add(sealed("b"))
        for _ in range(3):
            assert await store.get("b") == sealed("b")
        assert lasting.calls["get"] == 1
        assert await store.get("c") is None
        assert (await store.held())["acme"].num_entries == 2


async def test_deleting_reaches_both(stores: Stores) -> None:
    """What was stored as well as what was on its way there when it was purged."""
    lasting = Watched(stores())
    async with tiered(lasting) as store:
        for i in range(20):
            store.put(sealed(f"e{i}", vector=embedding(1), tenant=f"t{i % 2}"))
        await store.purge(tenant="t0")
        store.put(sealed("last", scope="s2"))
        await eventually(lambda: _has(lasting, "last"))
        assert await store.get("e0") is None
        assert not await _has(lasting, "e0")
        assert await store.get("e1") is not None
        assert await store.delete("e1")
        assert not await store.delete("e1")
        assert await store.get("e1") is None
        store.discard(sealed("e3"))
        assert len({near.entry.id for near in await store.nearest("s1", embedding(1), 20)} - {"e3"}) == 8


async def test_what_another_server_purges_leaves_this_ones_memory(redis: RedisProcess, prefix: str) -> None:
    """Within a second, an entry as well as a tenant's."""
    one, other = (Watched(RedisStore(RedisLink(redis.url, prefix, 5.0), AMPLE, Clock())) for _ in range(2))
    async with tiered(one) as here, tiered(other) as there:
        for entry_id, tenant in (("a", "acme"), ("b", "globex"), ("c", "globex")):
            here.put(sealed(entry_id, tenant=tenant))
        await eventually(lambda: _has(other, "c"))
        assert [await there.get(name) is not None for name in "abc"] == [True] * 3
        await asyncio.sleep(0.6)  # it has asked once, so it knows where it stands
        await here.delete("c")
        await here.purge(tenant="acme")

        async def gone() -> bool:
            return await there.get("a") is None and await there.get("c") is None

        await eventually(gone, 2.0)
        assert await there.get("b") is not None


async def test_what_is_read_while_it_is_purged_is_not_kept() -> None:
    """The store had it when it was asked; afterwards nobody has."""
    asked, answers = asyncio.Event(), asyncio.Event()

    class Slow(MemoryStore):
        async def get(self, entry_id: str) -> Sealed | None:
            found = await super().get(entry_id)
            asked.set()
            await answers.wait()
            return found

    lasting = Slow(AMPLE, Clock())
    await lasting.add(sealed("a"))
    async with tiered(Watched(lasting)) as store:
        reading = asyncio.create_task(store.get("a"))
        await asked.wait()
        assert await store.purge() == 1
        answers.set()
        assert await reading is not None
        assert await store.get("a") is None


class Cut(MemoryStore):
    """One that may be away, and tells of a purge to who asks right after it has found it back."""

    away = False
    asked: tuple[str, ...] = ()

    async def add(self, entry: Sealed) -> None:
        if self.away:
            raise CacheUnavailable("away")
        await super().add(entry)

    async def ping(self, *, writes: bool = False) -> None:
        self.asked = ("ping",)
        if self.away:
            raise CacheUnavailable("away")

    async def purges(self) -> list[Purge]:
        told = [Purge(tenant="acme")] if self.asked == ("ping",) and not self.away else []
        self.asked = ()
        return told


async def test_what_was_purged_while_a_server_was_cut_off_is_not_given_back() -> None:
    """It hears of the purge before it gives anything."""
    lasting = Cut(AMPLE, Clock())
    async with tiered(Watched(lasting)) as store:
        store.put(sealed("a"))
        store.put(sealed("b", tenant="globex"))
        await eventually(lambda: _holds(lasting, "a", "b"))
        lasting.away = True
        store.put(sealed("c", tenant="globex"))
        await asyncio.sleep(0.05)
        await lasting.purge(tenant="acme")
        lasting.away = False
        await eventually(lambda: _holds(lasting, "b", "c"))
        assert lasting.find("a") is None
        assert await store.get("a") is None


async def _holds(store: MemoryStore, *ids: str) -> bool:
    return all(store.find(entry_id) is not None for entry_id in ids)


@asynccontextmanager
async def harmed(folder: Path) -> AsyncIterator[tuple[Watched, RedisProcess, TcpProxy]]:
    """A store in a Redis of the test's own, behind a proxy."""
    running = redis_8(folder).start()
    try:
        async with TcpProxy(running.port) as proxy:
            link = RedisLink(f"redis://127.0.0.1:{proxy.port}/0", "", TIMEOUT_S)
            yield Watched(RedisStore(link, AMPLE, Clock())), running, proxy
    finally:
        running.stop()


@pytest.mark.parametrize("fault", AWAY)
async def test_while_redis_is_away_requests_go_on(fault: str, tmp_path: Path) -> None:
    """From memory, without a storm; afterwards what this server knows is in Redis again."""
    async with harmed(tmp_path) as (lasting, running, proxy), tiered(lasting) as store:
        for i in range(5):
            store.put(sealed(f"e{i}", vector=embedding(1, i)))
        await eventually(lambda: _has(lasting, "e4"))
        with capture_logs() as logs:
            async with FAULTS[fault](running, proxy):
                lasting.calls.clear()
                began = time.monotonic()
                for burst in range(3):
                    looked = [store.get(f"e{i % 5}") for i in range(50)] + [store.get(f"x{i}") for i in range(50)]
                    found = await asyncio.gather(*looked, *(store.nearest("s1", embedding(1), 2) for _ in range(50)))
                    assert [one.id for one in found[:5]] == ["e0", "e1", "e2", "e3", "e4"]
                    assert [near.entry.id for near in found[-1]] == ["e0", "e1"]
                    store.put(sealed(f"new{burst}"))
                    await asyncio.sleep(0.2)
                took_s = time.monotonic() - began
                assert took_s < 3 * 0.2 + 4 * TIMEOUT_S + 1.0
                if fault == "full":
                    assert not store.reads.is_open
                elif fault not in ("resetting", "read_only"):
                    assert sum(lasting.calls.values()) < MAX_CALLS + 3 * (FAILURES + took_s / 0.5)
            await eventually(lambda: _is_up(store))

            async def all_there() -> bool:
                ids = [f"e{i}" for i in range(5)] + [f"new{i}" for i in range(3)]
                return all([await _has(lasting, name) for name in ids])

            if fault in ("killed", "stopped", "silent", "locked"):
                await eventually(all_there)
            store.put(sealed("after"))
            await eventually(lambda: _has(lasting, "after"))
        assert len([line for line in logs if line["event"].endswith("_unavailable")]) <= 4


async def test_a_redis_that_was_flushed_is_filled_again(tmp_path: Path) -> None:
    """What is in memory is served on, what is not is stored again when it was generated again."""
    async with harmed(tmp_path) as (lasting, running, _), tiered(lasting) as store:
        store.put(sealed("a", vector=embedding(1)))
        await eventually(lambda: _has(lasting, "a"))
        running.command("FLUSHALL")
        assert await store.get("a") is not None
        store.put(sealed("b", vector=embedding(1)))
        await eventually(lambda: _has(lasting, "b"))
        assert [near.entry.id for near in await store.nearest("s1", embedding(1), 2)] == ["b"]
        assert (await store.held())["acme"].num_entries == 1


async def test_a_redis_without_vector_sets_is_told_of_once(tmp_path: Path) -> None:
    """Memory serves alone, and the log says what is needed; the exact tier needs none."""
    running = RedisProcess(tmp_path).start()
    try:
        lasting = Watched(RedisStore(RedisLink(running.url, "", TIMEOUT_S), AMPLE, Clock()))
        with capture_logs() as logs:
            async with tiered(lasting) as store:
                for i in range(10):
                    store.put(sealed(f"e{i}", vector=embedding(1, i)))
                await asyncio.sleep(0.2)
                near = [await store.nearest("s1", embedding(1), 3) for _ in range(FAILURES)]
                assert [len(found) for found in near] == [3] * FAILURES
                await eventually(lambda: _is_away(store))
        events = {line["event"]: line["reason"] for line in logs}
        assert len(logs) == len(events) == 2
        assert events.keys() == {"cache_store_writes_unavailable", "cache_store_unavailable"}
        exact = RedisStore(RedisLink(running.url, "", TIMEOUT_S), AMPLE, Clock(), searches=False)
        await exact.ping(writes=True)
        await exact.add(sealed("a", vector=embedding(1)))
        assert await exact.get("a") is not None
        await exact.close()
    finally:
        running.stop()


async def test_a_hash_that_nobody_can_read_is_not_ours(redis: RedisProcess, prefix: str) -> None:
    """It is handed over as something whose seal does not hold, and lists that point nowhere lead nowhere."""
    store = RedisStore(RedisLink(redis.url, prefix, 5.0), AMPLE, Clock())
    await store.add(sealed("a", vector=embedding(1)))
    await store.add(sealed("b", vector=embedding(1)))
    redis.command("HSET", f"{prefix}cache:e:a", "epoch", "soon")
    redis.command("HDEL", f"{prefix}cache:e:a", "body")
    redis.command("DEL", f"{prefix}cache:e:b")
    found = await store.get("a")
    assert found is not None
    assert found.body == b""
    assert [near.entry.body for near in await store.nearest("s1", embedding(1), 3)] == [b""]
    assert redis.command("VCARD", f"{prefix}cache:v:s1") == 1
    redis.command("DEL", f"{prefix}cache:b:acme", f"{prefix}cache:t:acme")
    crowded = RedisStore(RedisLink(redis.url, prefix, 5.0), Quotas(1500, 1500), Clock())
    await crowded.add(last := sealed("c"))
    assert await crowded.held() == {"acme": Held(1, last.num_bytes)}
    await store.close()
    await crowded.close()


async def test_what_a_tenant_has_lost_is_not_taken_from_another(redis: RedisProcess, prefix: str) -> None:
    """Redis let go of an entry, and another tenant of the group has stored the answer anew."""
    store = RedisStore(RedisLink(redis.url, prefix, 5.0), AMPLE, Clock())
    await store.add(sealed("a", tenant="acme", vector=embedding(1)))
    redis.command("DEL", f"{prefix}cache:e:a")
    await store.add(anew := sealed("a", tenant="globex", vector=embedding(1)))
    await store.purge(tenant="acme")
    assert await store.get("a") == anew
    assert len(await store.nearest("s1", embedding(1), 3)) == 1
    assert list(await store.held()) == ["globex"]
    await store.close()


async def test_what_nobody_can_write_is_left_out() -> None:
    """So many writes wait, further ones are counted; memory stays bounded, and nobody waits."""

    store = TieredStore(memory(Quotas(20_000, 20_000)), memory())
    for i in range(MAX_WRITES + 100):
        store.put(sealed(f"e{i}"))
    assert store.num_left_out == 100
    assert (await store.get(f"e{MAX_WRITES + 99}")) is not None
    assert len(store._memory) < 40
    await store.close()


async def _has(store: Watched, entry_id: str) -> bool:
    try:
        return await store.inner.get(entry_id) is not None
    except CacheUnavailable:
        return False


async def _is_away(store: TieredStore) -> bool:
    return store.reads.is_open and store.writes.is_open


async def _is_up(store: TieredStore) -> bool:
    return not (store.reads.is_open or store.writes.is_open)
