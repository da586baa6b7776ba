"""The memory tier in front of a store: what is asked of which, and what goes on while the store is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.cache.entries import Sealed
from forebay.cache.index import Index
from forebay.cache.stores.base import CacheUnavailable, Purge, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.redis_impl.store import RedisStore
from forebay.cache.stores.sqlite_impl import SqliteStore
from forebay.cache.stores.tiered import MAX_WRITES, TieredStore
from forebay.stores.redis_impl.link import RedisLink
from support.cache_stores import AMPLE, Clock, Stores, Watched
from support.entries import embedding, sealed
from support.redis import RedisProcess
from support.tiers import eventually, has, memory, tiered


async def test_what_is_put_is_found_at_once_and_stored_soon(stores: Stores) -> None:
    """And what the store has, the memory tier keeps for the next time."""
    lasting = Watched(stores())
    async with tiered(lasting) as store:
        store.put(entry := sealed("a", vector=embedding(1)))
        assert await store.get("a") == entry
        assert lasting.calls["get"] == 0
        assert [near.entry for near in await store.nearest("s1", embedding(1), 2)] == [entry]
        await eventually(lambda: has(lasting, "a"))
        await lasting.add(sealed("b"))
        for _ in range(3):
            assert await store.get("b") == sealed("b")
        assert lasting.calls["get"] == 1
        assert await store.get("c") is None
        assert (await store.held())["acme"].num_entries == 2


async def test_what_is_put_together_is_written_together(stores: Stores) -> None:
    """Once, in its order: what was removed in between is there if it was put again, and not if it was not."""
    lasting = Watched(stores())
    async with tiered(lasting) as store:
        for name in "abcd":
            store.put(sealed(name))
        store.discard(sealed("a"))
        store.discard(sealed("b"))
        store.put(sealed("b"))

        async def all_done() -> bool:
            found = [await has(lasting, name) for name in "abcd"]
            return lasting.calls["add"] == 2 and found == [False, True, True, True]

        await eventually(all_done)


async def test_what_waits_when_it_closes_is_written(tmp_path: Path) -> None:
    """A moment ago it was put, so it is there for the next server."""
    lasting = SqliteStore(tmp_path, AMPLE, Clock())
    async with tiered(Watched(lasting)) as store:
        store.put(sealed("a"))
    again = SqliteStore(tmp_path, AMPLE, Clock())
    assert await again.get("a") == sealed("a")
    await again.close()


async def test_a_file_is_not_asked_for_what_it_lacks(tmp_path: Path) -> None:
    """Nearly every miss costs no way to it; what was there before, or is added, or added again, is always found."""
    before = SqliteStore(tmp_path, AMPLE, Clock())
    assert not before.lacks("x")
    await before.add(*(sealed(f"e{i}") for i in range(200)))
    await before.close()
    lasting = Watched(SqliteStore(tmp_path, AMPLE, Clock()))
    async with tiered(lasting, MemoryStore(Quotas(2000, 2000), Clock())) as store:
        await eventually(lambda: _lacks(lasting, "x"))
        assert [await store.get(f"x{i}") for i in range(500)] == [None] * 500
        assert lasting.calls["get"] < 20
        await lasting.inner.add(sealed("new"))
        assert all([await store.get(name) is not None for name in ("new", *(f"e{i}" for i in range(200)))])


async def _lacks(store: Watched, entry_id: str) -> bool:
    return bool(store.inner.lacks(entry_id))


async def test_deleting_reaches_both(stores: Stores) -> None:
    """What was stored as well as what was on its way there when it was purged."""
    lasting = Watched(stores())
    async with tiered(lasting) as store:
        for i in range(20):
            store.put(sealed(f"e{i}", vector=embedding(1), tenant=f"t{i % 2}"))
        await store.purge(tenant="t0")
        store.put(sealed("last", scope="s2"))
        await eventually(lambda: has(lasting, "last"))
        assert await store.get("e0") is None
        assert not await has(lasting, "e0")
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
        await eventually(lambda: has(other, "c"))
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

    async def add(self, *entries: Sealed) -> None:
        if self.away:
            raise CacheUnavailable("away")
        await super().add(*entries)

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

        async def has_noticed() -> bool:
            return store.writes.num_failures > 0

        await eventually(has_noticed)
        await lasting.purge(tenant="acme")
        lasting.away = False
        await eventually(lambda: _holds(lasting, "b", "c"))
        assert lasting.find("a") is None
        assert await store.get("a") is None


async def _holds(store: MemoryStore, *ids: str) -> bool:
    return all(store.find(entry_id) is not None for entry_id in ids)


class Full(MemoryStore):
    """It answers, and takes nothing."""

    full: Exception | None = None

    async def add(self, *entries: Sealed) -> None:
        if self.full is not None:
            raise self.full
        await super().add(*entries)


@pytest.mark.parametrize("failure", [CacheUnavailable("full"), OSError("a disk")], ids=["ours", "foreign"])
async def test_a_store_that_answers_and_takes_nothing(failure: Exception) -> None:
    """It is asked for a few entries twice a second, not for all; what it does not say in our words is logged."""
    lasting = Watched(Full(AMPLE, Clock()))
    lasting.inner.full = failure
    with capture_logs() as logs:
        async with tiered(lasting) as store:
            for i in range(100):
                store.put(sealed(f"e{i}"))
            await asyncio.sleep(1.2)
            assert await store.get("e7") is not None
            assert lasting.calls["add"] < 20
            lasting.inner.full = None
            await eventually(lambda: _holds(lasting.inner, *(f"e{i}" for i in range(100))))
    assert ("cache_store_failed" in {line["event"] for line in logs}) is isinstance(failure, OSError)


class Wiped(Full):
    """One that loses everything, and knows it, as soon as it is asked for purges."""

    losses = 0
    wipes_itself_after = 0
    """So many times that it is asked for an entry; 0 means never."""

    def wipe(self) -> None:
        self.remove_all(list(self))
        self.losses += 1

    def num_losses(self) -> int:
        return self.losses

    async def get(self, entry_id: str) -> Sealed | None:
        if self.wipes_itself_after:
            self.wipes_itself_after -= 1
            if not self.wipes_itself_after:
                self.wipe()
        return await super().get(entry_id)


async def test_what_memory_holds_is_near_while_the_store_lacks_it() -> None:
    """Also where the store has others, which are not as near; and it is given back once the store takes it."""
    lasting = Wiped(AMPLE, Clock(), index=Index())
    async with tiered(Watched(lasting)) as store:
        store.put(close := sealed("close", vector=embedding(1)))
        await eventually(lambda: _holds(lasting, "close"))
        lasting.wipe()
        await lasting.add(sealed("far", vector=embedding(1, 2)))
        lasting.full = CacheUnavailable("full")

        async def is_near() -> bool:
            return [near.entry for near in await store.nearest("s1", embedding(1), 1)] == [close]

        await eventually(is_near)
        lasting.full = None
        await eventually(lambda: _holds(lasting, "close", "far"))
        assert await is_near()


async def test_a_store_that_is_wiped_while_it_is_given_back_gets_all_the_same() -> None:
    """What it was given before went with the rest."""
    lasting = Wiped(AMPLE, Clock())
    async with tiered(Watched(lasting)) as store:
        for name in "abc":
            store.put(sealed(name))
        await eventually(lambda: _holds(lasting, *"abc"))
        lasting.wipe()
        lasting.wipes_itself_after = 3
        await eventually(lambda: _holds(lasting, *"abc"))
        assert (lasting.losses, lasting.wipes_itself_after) == (2, 0)


async def test_what_nobody_can_write_is_left_out() -> None:
    """So many writes wait, further ones are counted; memory stays bounded, and nobody waits."""

    store = TieredStore(memory(Quotas(20_000, 20_000)), memory())
    for i in range(MAX_WRITES + 100):
        store.put(sealed(f"e{i}"))
    assert store.num_left_out == 100
    assert (await store.get(f"e{MAX_WRITES + 99}")) is not None
    assert len(store._memory) < 40
    await store.close()
