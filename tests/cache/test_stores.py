"""What every store of the cache does: in memory, in a file, in Redis."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from forebay.cache.stores.base import CacheStore, Held, Quotas
from support.cache_stores import Clock, Stores
from support.entries import chance_embedding, embedding, seal, sealed, sized

MINUTE_MS = 60_000


async def test_what_was_added_is_found_as_it_was(store: CacheStore) -> None:
    """To the byte, with or without an embedding; its seal holds."""
    first, second = sealed("a", text="Zürich \u0000 ?"), sealed("b", vector=embedding(1, 2, 3))
    for entry in (first, second):
        assert await store.get(entry.id) is None
        await store.add(entry)
        found = await store.get(entry.id)
        assert found == entry
        assert seal().open(found) is not None
    assert await store.held() == {"acme": Held(2, first.num_bytes + second.num_bytes)}


async def test_a_newer_entry_takes_the_place_of_an_older(store: CacheStore) -> None:
    """It counts once, is found with its own vector, or with none."""
    await store.add(sealed("a", vector=embedding(1), text="older"))
    await store.add(newer := sealed("a", vector=embedding(0, 1), text="newer"))
    assert await store.get("a") == newer
    assert [near.cosine for near in await store.nearest("s1", embedding(0, 1), 5)] == [pytest.approx(1.0)]
    await store.add(bare := sealed("a"))
    assert await store.nearest("s1", embedding(0, 1), 5) == []
    assert await store.held() == {"acme": Held(1, bare.num_bytes)}


async def test_of_two_tenants_that_share_the_later_has_the_entry(store: CacheStore) -> None:
    """An id is a question's, whoever of the group has asked it."""
    await store.add(sealed("a", tenant="acme", vector=embedding(1)))
    await store.add(later := sealed("a", tenant="globex", vector=embedding(1)))
    assert await store.get("a") == later
    assert await store.held() == {"globex": Held(1, later.num_bytes)}
    assert await store.purge(tenant="acme") == 0
    assert len(await store.nearest("s1", embedding(1), 5)) == 1


async def test_the_nearest_of_a_scope(store: CacheStore) -> None:
    """Nearest first, with their cosines, at most as many as asked for, of this scope only."""
    for i in range(6):
        await store.add(sealed(f"e{i}", vector=embedding(1, i)))
    await store.add(sealed("elsewhere", scope="s2", vector=embedding(1)))
    await store.add(sealed("exact only"))
    near = await store.nearest("s1", embedding(1), 3)
    assert [one.entry.id for one in near] == ["e0", "e1", "e2"]
    assert [one.cosine for one in near] == [pytest.approx((1 + i * i) ** -0.5, abs=1e-6) for i in range(3)]
    assert [one.entry.id for one in await store.nearest("s2", embedding(0, 1), 3)] == ["elsewhere"]
    assert await store.nearest("s3", embedding(1), 3) == []


async def test_the_nearest_of_many(store: CacheStore) -> None:
    """Among hundreds, added while it is searched, the one that was asked for is first."""
    rng = random.Random(7)
    vectors = {f"e{i}": chance_embedding(rng, 64) for i in range(300)}
    for i, (name, vector) in enumerate(vectors.items()):
        await store.add(sealed(name, vector=vector))
        if i % 50 == 0:
            assert (await store.nearest("s1", vector, 1))[0].entry.id == name
    for name in ("e0", "e151", "e299"):
        near = await store.nearest("s1", vectors[name], 4)
        assert (near[0].entry.id, near[0].cosine) == (name, pytest.approx(1.0))
        assert [one.cosine for one in near] == sorted((one.cosine for one in near), reverse=True)


async def test_another_embedders_vectors_are_no_neighbours(store: CacheStore) -> None:
    """Nothing is found rather than something wrong, and the newer embedder's take over."""
    await store.add(sealed("old", vector=embedding(1)))
    assert await store.nearest("s1", embedding(1, dim=16), 5) == []
    await store.add(sealed("new", vector=embedding(1, dim=16)))
    assert [one.entry.id for one in await store.nearest("s1", embedding(1, dim=16), 5)] == ["new"]
    assert await store.get("old") is not None


async def test_what_has_expired_is_not_found(store: CacheStore, clock: Clock) -> None:
    """Swept or not; sweeping gives back what it took."""
    await store.add(sealed("short", vector=embedding(1), expires_in_ms=MINUTE_MS))
    await store.add(long := sealed("long", vector=embedding(1), expires_in_ms=3 * MINUTE_MS))
    clock.now += MINUTE_MS
    assert await store.get("short") is None
    assert [one.entry.id for one in await store.nearest("s1", embedding(1), 5)] == ["long"]
    await store.sweep()
    assert await store.held() == {"acme": Held(1, long.num_bytes)}
    assert await store.sweep() == 0
    assert await store.get("long") == long


async def test_a_tenants_quota_is_its_own(stores: Stores, clock: Clock) -> None:
    """The least recently used of the tenant go; others lose nothing, and what is larger than the quota is left out."""
    store = stores(Quotas(max_bytes=100_000, tenant_bytes=30_000))
    await store.add(sized("other", 10_000, tenant="globex"))
    for name in ("a", "b", "c"):
        clock.now += MINUTE_MS + 1
        await store.add(sized(name, 10_000, vector=embedding(1), expires_in_ms=100 * MINUTE_MS))
    clock.now += MINUTE_MS + 1
    await store.touch("a")
    clock.now += MINUTE_MS + 1
    await store.add(sized("d", 10_000, vector=embedding(1), expires_in_ms=100 * MINUTE_MS))
    await store.add(sized("huge", 30_001, expires_in_ms=100 * MINUTE_MS))
    assert {one.entry.id for one in await store.nearest("s1", embedding(1), 9)} == {"a", "c", "d"}
    assert await store.held() == {"acme": Held(3, 30_000), "globex": Held(1, 10_000)}
    assert [await store.get(name) is not None for name in ("a", "b", "c", "d", "huge")] == [
        True,
        False,
        True,
        True,
        False,
    ]


async def test_who_has_most_gives_way_when_all_is_full(stores: Stores) -> None:
    """A tenant that fills the store takes the place of its own entries, not of others'."""
    store = stores(Quotas(max_bytes=40_000, tenant_bytes=40_000))
    await store.add(sized("small", 5_000, tenant="globex"))
    for i in range(6):
        await store.add(sized(f"e{i}", 10_000))
    held = await store.held()
    assert held == {"acme": Held(3, 30_000), "globex": Held(1, 5_000)}
    await store.add(sized("more", 15_000, tenant="globex"))
    assert await store.held() == {"acme": Held(2, 20_000), "globex": Held(2, 20_000)}


async def test_entries_are_deleted(store: CacheStore) -> None:
    """By their ids, once; they are neither found nor near afterwards."""
    await store.add(sealed("a", vector=embedding(1)))
    assert await store.delete("a")
    assert not await store.delete("a")
    assert await store.get("a") is None
    assert await store.nearest("s1", embedding(1), 5) == []
    assert await store.held() == {}


async def test_purges_take_what_was_named(store: CacheStore) -> None:
    """By tenant, model and epoch, all that is given together; without any everything."""
    kinds = [(tenant, model, epoch) for tenant in ("acme", "globex") for model in ("m", "n") for epoch in (0, 1)]

    async def fill() -> None:
        for tenant, model, epoch in kinds:
            await store.add(
                sealed(f"{tenant}{model}{epoch}", tenant=tenant, model=model, epoch=epoch, vector=embedding(1))
            )

    async def left() -> set[str]:
        return {one.entry.id for one in await store.nearest("s1", embedding(1), 20)}

    await fill()
    assert await store.purge(tenant="acme", model="m") == 2
    assert await store.purge(epoch=1) == 3
    assert await left() == {"acmen1", "globexm1", "globexn1"}
    assert await store.purge(model="n") == 2
    assert await left() == {"globexm1"}
    await fill()
    assert await store.purge() == 8
    assert await left() == set()
    assert await store.held() == {}


async def test_many_are_purged(store: CacheStore) -> None:
    """More than go in one step."""
    for i in range(450):
        await store.add(sealed(f"e{i}"))
    assert await store.purge(tenant="acme") == 450
    assert await store.held() == {}


async def test_calls_at_the_same_time(store: CacheStore) -> None:
    """Counts add up, whatever comes in between."""
    entries = [sealed(f"e{i % 20}", tenant=f"t{i % 2}", vector=embedding(1, i)) for i in range(60)]
    await asyncio.gather(
        *(store.add(entry) for entry in entries),
        *(store.nearest("s1", embedding(1), 5) for _ in range(20)),
        *(store.delete(f"e{i}") for i in range(10)),
        return_exceptions=False,
    )
    held = await store.held()
    there = [entry for i in range(20) if (entry := await store.get(f"e{i}")) is not None]
    assert sum(one.num_entries for one in held.values()) == len(there)
    assert sum(one.num_bytes for one in held.values()) == sum(entry.num_bytes for entry in there)
    near = await store.nearest("s1", embedding(1), 100)
    assert {one.entry.id for one in near} == {entry.id for entry in there}


async def test_what_is_not_ours_is_handed_over_and_does_not_open(store: CacheStore) -> None:
    """Stores check nothing; the seal does."""
    await store.add(replace(sealed("a", vector=embedding(1)), body=b"x" * 40))
    opening = seal()
    found = await store.get("a")
    assert found is not None
    assert opening.open(found) is None
    (near,) = await store.nearest("s1", embedding(1), 1)
    assert opening.open(near.entry) is None
    assert opening.num_refused == 2


async def test_a_store_answers_until_it_is_closed(store: CacheStore) -> None:
    """Closing twice is closing once."""
    await store.ping()
    await store.ping(writes=True)
    await store.close()
    await store.close()
