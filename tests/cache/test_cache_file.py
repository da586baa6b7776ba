"""The cache's own data file: what survives, and what becomes of one that is broken."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from forebay.cache.index import Index
from forebay.cache.stores.base import CacheUnavailable, Held, Quotas
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.sqlite_impl import SqliteStore
from forebay.cache.stores.sqlite_rows import FILE_NAME, SET_ASIDE
from support.cache_stores import AMPLE, Clock, Watched
from support.entries import embedding, seal, sealed, sized
from support.tiers import tiered


def store_in(folder: Path, quotas: Quotas = AMPLE, *, index: Index | None = None) -> SqliteStore:
    return SqliteStore(folder, quotas, Clock(), index=Index() if index is None else index)


async def test_entries_outlive_the_server(tmp_path: Path) -> None:
    """Found and counted by the next one, near as before; the file is its owner's alone."""
    first = store_in(tmp_path)
    await first.add(sealed("a", vector=embedding(1)))
    await first.add(sealed("b", tenant="globex"))
    held = await first.held()
    await first.close()
    second = store_in(tmp_path)
    assert await second.get("a") == sealed("a", vector=embedding(1))
    assert [near.entry.id for near in await second.nearest("s1", embedding(1), 3)] == ["a"]
    assert await second.held() == held
    await second.close()
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_file_that_is_none_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """One call fails, one line says so, and the cache goes on with a new file; the older is kept, once."""
    (tmp_path / SET_ASIDE).write_bytes(b"set aside before")
    (tmp_path / FILE_NAME).write_bytes(content)
    store = store_in(tmp_path)
    with capture_logs() as logs:
        with pytest.raises(CacheUnavailable):
            await store.get("a")
        await store.add(sealed("a"))
        assert await store.get("a") == sealed("a")
    assert [(line["event"], line["file"]) for line in logs] == [("cache_file_set_aside", SET_ASIDE)]
    assert (tmp_path / SET_ASIDE).read_bytes() == content
    await store.close()


async def test_a_file_that_breaks_while_it_is_used(tmp_path: Path) -> None:
    """Whoever meets it, reader or writer, and however many at once: it is set aside once."""
    store = store_in(tmp_path)
    for i in range(200):
        await store.add(sized(f"e{i}", 4000, vector=embedding(1, i)))
    await store.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(200_000))
    store = store_in(tmp_path)
    with capture_logs() as logs:
        for _ in range(6):
            calls = [store.nearest("s1", embedding(1), 4), store.add(sealed("new", vector=embedding(1)))]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, CacheUnavailable | list | None) for result in results)
    assert [line["event"] for line in logs] == ["cache_file_set_aside"]
    assert await store.held() == {"acme": Held(1, sealed("new", vector=embedding(1)).num_bytes)}
    assert [near.entry.id for near in await store.nearest("s1", embedding(1), 4)] == ["new"]
    await store.close()


async def test_a_file_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    """It holds nothing that cannot be made again."""
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("CREATE TABLE entries (whatever)")
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    store = store_in(tmp_path)
    await store.add(sealed("a"))
    assert await store.get("a") == sealed("a")
    await store.close()


async def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """Each call says so; none ends the server."""
    (tmp_path / "file").touch()
    store = store_in(tmp_path / "file")
    for call in (store.get("a"), store.add(sealed("a")), store.ping(), store.ping(writes=True)):
        with pytest.raises(CacheUnavailable):
            await call
    await store.close()
    with pytest.raises(CacheUnavailable):
        await store.get("a")


async def test_the_index_holds_what_is_searched(tmp_path: Path) -> None:
    """Scopes come and go whole as they are searched, and answers are the same; what was added meanwhile is in them."""
    index = Index(60_000)
    store = store_in(tmp_path, index=index)
    for scope in "abcdef":
        for i in range(20):
            await store.add(sealed(f"{scope}{i}", scope=scope, vector=embedding(1, i, dim=64)))
    for scope in "abcdefabcdef":
        near = await store.nearest(scope, embedding(1, dim=64), 2)
        assert [one.entry.id for one in near] == [f"{scope}0", f"{scope}1"]
        assert index.num_bytes <= 60_000
    await store.add(sealed("a0", scope="a", vector=embedding(0, 0, 1, dim=64)))
    await store.add(sealed("a99", scope="a", vector=embedding(1, dim=64)))
    near = await store.nearest("a", embedding(1, dim=64), 2)
    assert [one.entry.id for one in near] == ["a99", "a1"]
    await store.close()


async def test_of_a_scope_that_is_too_large_the_newest_are_searched(tmp_path: Path) -> None:
    """As many as the index may hold; all of them are found by their ids."""
    clock = Clock()
    store = SqliteStore(tmp_path, AMPLE, clock, index=Index(10 * 2048))
    for i in range(30):
        clock.now += 1
        await store.add(sealed(f"e{i}", vector=embedding(1, i, dim=384)))
    near = await store.nearest("s1", embedding(1, dim=384), 30)
    assert [one.entry.id for one in near] == [f"e{i}" for i in range(20, 30)]
    assert await store.get("e0") is not None
    await store.close()


async def test_a_scope_that_grows_keeps_what_is_newest(tmp_path: Path) -> None:
    """While it is searched, too: the index stays within its bound, what left it is found by its id, and what is left
    are the last that were added."""
    index = Index(40_000)
    store, most = store_in(tmp_path, index=index), 0
    assert await store.nearest("s1", embedding(1, dim=64), 4) == []
    for i in range(150):
        await store.add(sealed(f"e{i}", vector=embedding(1, i, dim=64)))
        near = await store.nearest("s1", embedding(1, 149, dim=64), 200)
        assert f"e{i}" in {one.entry.id for one in near}
        assert index.num_bytes <= 40_000
        most = max(most, len(near))
    assert sorted(int(one.entry.id[1:]) for one in near) == list(range(150 - most, 150))
    assert index.num_dropped == 150 - most > 0
    assert await store.get("e0") is not None
    await store.close()


async def test_what_another_process_deleted_is_no_neighbour(tmp_path: Path) -> None:
    """The command line may purge beside a server; the server notices by and by."""
    server, beside = store_in(tmp_path, Quotas(20_000, 20_000)), store_in(tmp_path)
    await server.add(sized("a", 8_000, vector=embedding(1)))
    await server.add(sized("b", 8_000, vector=embedding(1)))
    assert len(await server.nearest("s1", embedding(1), 4)) == 2
    await beside.purge()
    assert await server.nearest("s1", embedding(1), 4) == []
    with pytest.raises(CacheUnavailable):
        await server.add(sized("c", 8_000))
    await server.add(sized("c", 8_000))
    assert await server.held() == {"acme": Held(1, 8_000)}
    await server.close()
    await beside.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [("body", "a text"), ("body", 5), ("expires_at", "soon"), ("epoch", b"7"), ("tenant", b"\xff"), ("model", 1.5)],
)
async def test_values_of_other_kinds_are_not_ours(tmp_path: Path, column: str, value: object) -> None:
    """SQLite lets a column hold anything: such an entry is handed over as one whose seal does not hold."""
    store = store_in(tmp_path)
    await store.add(sealed("a"))
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        kept = "CAST(? AS TEXT)" if value == b"\xff" else "?"
        file.execute(f"UPDATE entries SET {column} = {kept}", (value,))
    file.close()
    front = MemoryStore(AMPLE, Clock())
    opening = seal()
    async with tiered(Watched(store), front) as cache:
        found = await cache.get("a")
        if found is not None:  # `soon` is no time, so it may have ended
            assert opening.open(found) is None
            cache.discard(found)
        cache.put(sealed("a"))
        assert await cache.get("a") == sealed("a")
        assert not cache.reads.num_failures


async def test_space_is_given_back(tmp_path: Path) -> None:
    """A purge makes the file smaller, not only emptier."""
    store = store_in(tmp_path)
    for i in range(100):
        await store.add(sized(f"e{i}", 50_000))
    await store.purge()
    await store.close()
    assert (tmp_path / FILE_NAME).stat().st_size < 1_000_000
