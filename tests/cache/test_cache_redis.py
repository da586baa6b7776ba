"""The cache in Redis: while it is away, when it has lost something, and what it holds that is not ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.cache.stores.base import Held, Quotas
from forebay.cache.stores.redis_impl.store import RedisStore
from forebay.cache.stores.tiered import MAX_CALLS, TieredStore
from forebay.stores.breaker import FAILURES
from forebay.stores.redis_impl.link import RedisLink
from support.cache_stores import AMPLE, Clock, Watched
from support.entries import embedding, sealed
from support.redis import RedisProcess, redis_8
from support.redis_faults import FAULTS
from support.tcp_proxy import TcpProxy
from support.tiers import TIMEOUT_S, can_be_read, eventually, has, is_away, is_up, tiered

AWAY = ("killed", "stopped", "full", "silent", "resetting", "read_only", "locked")


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
        await eventually(lambda: has(lasting, "e4"))
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
                if fault == "full":  # it can be read, though a busy machine's reads may be late
                    assert store.writes.num_failures
                    assert not await has(lasting, "new0")
                    await eventually(lambda: can_be_read(store))
                    whys = {line["reason"] for line in logs if line["event"] == "cache_store_unavailable"}
                    assert whys <= {"no answer in time"}
                elif fault not in ("resetting", "read_only"):
                    assert sum(lasting.calls.values()) < MAX_CALLS + 3 * (FAILURES + took_s / 0.5)
            await eventually(lambda: is_up(store))

            async def all_there() -> bool:
                ids = [f"e{i}" for i in range(5)] + [f"new{i}" for i in range(3)]
                return all([await has(lasting, name) for name in ids])

            if fault in ("killed", "stopped", "full", "silent", "locked"):
                await eventually(all_there)
            store.put(sealed("after"))
            await eventually(lambda: has(lasting, "after"))
        assert len([line for line in logs if line["event"].endswith("_unavailable")]) <= 4


async def test_who_leaves_while_he_waits_leaves_nothing_behind(tmp_path: Path) -> None:
    """His answer, which comes later, is nobody else's; nobody waits in his place, and the store is not away for it."""
    async with harmed(tmp_path) as (lasting, _, proxy), tiered(lasting) as store:
        for name in "abc":
            await lasting.inner.add(sealed(name))
        proxy.delay_s = TIMEOUT_S / 4
        for _ in range(MAX_CALLS):
            leaving = [asyncio.create_task(store.get("a")) for _ in range(3)]
            await asyncio.sleep(0.005)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
        found = await asyncio.gather(*(store.get(name) for name in "bcx"))
        assert [None if one is None else one.id for one in found] == ["b", "c", None]
        assert not store.reads.num_failures
        assert not store.reads.is_open


async def test_a_redis_that_was_flushed_is_filled_again(tmp_path: Path) -> None:
    """Memory serves on, by words and by vectors, and what it holds is in Redis again though nobody stores anything;
    once, and again after another flush."""
    async with harmed(tmp_path) as (lasting, running, _), tiered(lasting) as store:
        for name in "ab":
            store.put(sealed(name, vector=embedding(1)))
        await eventually(lambda: has(lasting, "b"))
        await asyncio.sleep(0.6)  # it has asked what was told, so it knows this Redis
        with capture_logs() as logs:
            for num_flushed in (1, 2):
                running.command("FLUSHALL")
                assert await store.get("a") is not None
                assert [near.entry.id for near in await store.nearest("s1", embedding(1), 2)] == ["a", "b"]
                await eventually(lambda: _has_near(lasting.inner, "a", "b"))
                await asyncio.sleep(1.2)
                assert [line["num_entries"] for line in logs] == [2] * num_flushed
        store.put(sealed("c"))
        await eventually(lambda: has(lasting, "c"))
        assert await is_up(store)


async def _has_near(lasting: RedisStore, *ids: str) -> bool:
    """Their embeddings, too, which are added after them."""
    return {near.entry.id for near in await lasting.nearest("s1", embedding(1), len(ids))} == set(ids)


async def test_what_one_server_lacks_another_gives_back_after_a_flush(tmp_path: Path) -> None:
    """Each what it holds in memory; what was purged before is in no memory, and in Redis no more."""
    async with harmed(tmp_path) as (one, running, _):
        other = Watched(RedisStore(RedisLink(running.url, "", 5.0), AMPLE, Clock()))
        async with tiered(one) as here, tiered(other) as there:
            here.put(sealed("a"))
            there.put(sealed("b"))
            there.put(sealed("purged", tenant="globex"))
            await eventually(lambda: has(one, "purged"))
            assert await here.get("purged") is not None
            await asyncio.sleep(0.6)
            await there.purge(tenant="globex")
            await eventually(lambda: _forgets(here, "purged"))
            running.command("FLUSHALL")
            await eventually(lambda: has(other, "a"))
            await eventually(lambda: has(one, "b"))
            assert not await has(one, "purged")


async def _forgets(store: TieredStore, entry_id: str) -> bool:
    return store.find(entry_id) is None


async def test_asking_what_was_told_is_a_read(tmp_path: Path) -> None:
    """A Redis that is new and full from the beginning can be asked."""
    async with harmed(tmp_path) as (lasting, running, _):
        running.command("CONFIG", "SET", "maxmemory", "1")
        assert await lasting.inner.purges() == []
        running.command("CONFIG", "SET", "maxmemory", "0")
        assert await lasting.inner.purges() == []
        assert lasting.inner.num_losses() == 0
        running.command("FLUSHALL")
        assert await lasting.inner.purges() == []
        assert lasting.inner.num_losses() == 1
        await lasting.inner.close()


async def test_purges_are_heard_of_also_after_a_flush(tmp_path: Path) -> None:
    """A Redis that has lost everything counts them anew: more of them than before must not pass for those."""
    async with harmed(tmp_path) as (_, running, _):
        one, other = (RedisStore(RedisLink(running.url, "", 5.0), AMPLE, Clock()) for _ in range(2))
        assert await one.purges() == []
        for name in ("a", "b"):
            await other.delete(name)
        assert [told.entry_id for told in await one.purges()] == ["a", "b"]
        running.command("FLUSHALL")
        for name in ("c", "d", "e"):
            await other.delete(name)
        assert [told.entry_id for told in await one.purges()] == ["c", "d", "e"]
        assert await one.purges() == []
        running.command("FLUSHALL")
        assert await one.purges() == []
        await other.delete("f")
        assert [told.entry_id for told in await one.purges()] == ["f"]
        await one.close()
        await other.close()


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
                await eventually(lambda: is_away(store))
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
    assert redis.command("VCARD", f"{prefix}cache:v:s1:8") == 1
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
