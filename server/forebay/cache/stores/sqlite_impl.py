"""Entries in a file of their own in the data folder, with their embeddings in memory as far as they are searched."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import orjson
import structlog

from forebay.cache.entries import OVERHEAD_BYTES, Sealed
from forebay.cache.stores import sqlite_rows as rows
from forebay.cache.stores.base import CacheUnavailable, Held, Neighbour, Purge, Quotas
from forebay.cache.stores.known import Known
from forebay.cache.stores.tally import Tally
from forebay.errors import ConfigurationError

if TYPE_CHECKING:
    from forebay.cache.index import Index

TOUCH_MS = 60_000
"""How exactly it is known when an entry was used last; a write each time would be one a hit."""

ROW_BYTES = 2048
"""What an embedding is taken for before the first of a scope is seen: 384 numbers, their sketch, and its id."""

MAX_ROWS = 1_000_000
"""Of a scope, that are read for an index without a bound."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class SqliteStore:
    """One thread writes, another one reads. A crash loses nothing that was added, a power cut maybe the newest.

    A file that is broken is set aside and a new one begun; one line says so.
    """

    def __init__(
        self,
        folder: Path,
        quotas: Quotas,
        now_ms: Callable[[], int],
        *,
        index: Index | None = None,
    ) -> None:
        """`now_ms`: Unix milliseconds. Without an index nothing is near anything. Nothing is opened yet."""
        self._folder = folder
        self._quotas = quotas
        self._now_ms = now_ms
        self._index = index
        self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._reader = ThreadPoolExecutor(1, "cache-reader")
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        self._tally: Tally | None = None
        self._written: list[Sealed] = []
        self._gone: list[rows.Gone] = []
        """By the transaction that is under way."""
        self._known = Known(quotas.max_bytes // OVERHEAD_BYTES)
        self._lock = threading.Lock()
        """Of the reading connection, and of what is in the index: a scope is in it whole or not at all."""
        self._heard: int | None = None
        self._num_replaced = 0
        self._closed = False

    # Calls

    def lacks(self, entry_id: str) -> bool:
        return entry_id not in self._known

    async def get(self, entry_id: str) -> Sealed | None:
        return await self._read(lambda file: rows.read_entries(file, [entry_id], self._now_ms()).get(entry_id))

    async def nearest(self, scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        if (index := self._index) is None:
            return []
        return await self._read(lambda file: self._nearest(file, index, scope, embedding, k))

    async def add(self, *entries: Sealed) -> None:
        """In one transaction."""
        most = min(self._quotas.tenant_bytes, self._quotas.max_bytes)
        fitting = [entry for entry in entries if entry.num_bytes <= most]
        await self._write(lambda file: self._add(file, fitting))

    async def touch(self, entry_id: str) -> None:
        await self._write(lambda file: rows.touch(file, entry_id, self._now_ms(), TOUCH_MS))

    async def delete(self, entry_id: str) -> bool:
        return await self._write(lambda file: self._delete(file, rows.BY_ID, Purge(entry_id), id=entry_id)) > 0

    async def purge(self, *, tenant: str | None = None, model: str | None = None, epoch: int | None = None) -> int:
        return await self._write(
            lambda file: self._delete(
                file, rows.PURGED, Purge(None, tenant, model, epoch), tenant=tenant, model=model, epoch=epoch
            ),
            vacuum=True,
        )

    async def held(self) -> Mapping[str, Held]:
        return await self._write(lambda file: self._tallied(file).by_tenant())

    async def sweep(self) -> int:
        return await self._write(lambda file: self._delete(file, rows.EXPIRED, now=self._now_ms()), vacuum=True)

    async def purges(self) -> Sequence[Purge]:
        """By the command line, beside the file's one server."""
        self._heard, told = await self._read(lambda file: rows.told_after(file, self._heard))
        if told:
            await self._write(self._count_anew)
        if self._known.is_full:
            await self._write(lambda file: self._known.begin(rows.all_ids(file)))
        return [Purge(**orjson.loads(purge)) for purge in told]

    def num_losses(self) -> int:
        return 0

    async def ping(self, *, writes: bool = False) -> None:
        if writes:
            await self._write(rows.probe)
        else:
            await self._read(rows.sums)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._writer.shutdown)
            await asyncio.to_thread(self._reader.shutdown)
            self._let_go()

    # In the reader's thread

    async def _read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        def reading() -> T:
            with self._lock, self._errors():
                if self._reading is None:
                    self._reading = rows.open_cache_file(self._folder)
                return call(self._reading)

        return await self._in(self._reader, reading)

    def _nearest(self, file: sqlite3.Connection, index: Index, scope: str, embedding: bytes, k: int) -> list[Neighbour]:
        now = self._now_ms()
        if scope not in index:
            limit = MAX_ROWS if index.max_bytes is None else max(1, index.max_bytes // ROW_BYTES)
            # Those that were used last are the last to make room.
            index.add(scope, reversed(rows.read_embeddings(file, scope, now, limit)))
        found = index.nearest(scope, embedding, k)
        entries = rows.read_entries(file, (entry_id for entry_id, _ in found), now)
        for entry_id, _ in found:
            if entry_id not in entries:
                index.remove(scope, entry_id)
        return [Neighbour(cosine, entries[entry_id]) for entry_id, cosine in found if entry_id in entries]

    # In the writer's thread

    async def _write(self, call: Callable[[sqlite3.Connection], T], *, vacuum: bool = False) -> T:
        def writing() -> T:
            with self._errors():
                if self._writing is None:
                    self._writing = rows.open_cache_file(self._folder)
                return self._transact(self._writing, call, vacuum=vacuum)

        return await self._in(self._writer, writing)

    def _transact(self, file: sqlite3.Connection, call: Callable[[sqlite3.Connection], T], *, vacuum: bool) -> T:
        self._written, self._gone = [], []
        file.execute("BEGIN IMMEDIATE")
        try:
            result = call(file)
            file.execute("COMMIT")
        except BaseException:
            self._tally = None
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        if self._index is not None:
            self._follow(self._index)
        if vacuum:
            rows.give_back_space(file)
        return result

    def _follow(self, index: Index) -> None:
        """Once it is committed: who loads a scope meanwhile sees either the row or, later, this."""
        with self._lock:
            for gone in self._gone:
                index.remove(gone.scope, gone.id)
            for entry in self._written:
                if entry.embedding is not None and entry.scope in index:
                    index.add(entry.scope, [(entry.id, entry.embedding)])

    def _tallied(self, file: sqlite3.Connection) -> Tally:
        if self._tally is None:
            self._tally = Tally(rows.sums(file))
        return self._tally

    def _add(self, file: sqlite3.Connection, entries: Sequence[Sealed]) -> None:
        quotas, tally = self._quotas, self._tallied(file)
        for entry in entries:
            num_bytes = entry.num_bytes
            self._delete(file, rows.BY_ID, id=entry.id)
            while tally.bytes_of(entry.tenant) + num_bytes > quotas.tenant_bytes:
                self._delete_oldest(file, entry.tenant)
            while tally.num_bytes + num_bytes > quotas.max_bytes:
                self._delete_oldest(file, tally.largest())
            rows.insert(file, entry, self._now_ms())
            tally.count(entry.tenant, 1, num_bytes)
            self._written.append(entry)
            self._known.add(entry.id)

    def _delete_oldest(self, file: sqlite3.Connection, tenant: str) -> None:
        if not self._delete(file, rows.OLDEST_OF_TENANT, tenant=tenant):
            raise CacheUnavailable("another process has changed the file")  # counted anew for the next write

    def _count_anew(self, file: sqlite3.Connection) -> None:
        self._tally = None

    def _delete(self, file: sqlite3.Connection, where: str, told: Purge | None = None, **parameters: object) -> int:
        tally = self._tallied(file)
        gone = rows.delete(file, where, parameters)
        for one in gone:
            tally.count(one.tenant, -1, -one.num_bytes)
        self._gone += gone
        if told is not None:
            rows.tell(file, orjson.dumps(told).decode())
        return len(gone)

    # In either

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        if self._closed:
            raise CacheUnavailable("it is closed")
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's words are for nobody: they may quote values. A broken file is replaced before the next write."""
        try:
            yield
        except sqlite3.Error as exc:
            if rows.is_broken(exc):
                self._writer.submit(self._replace, self._num_replaced, exc.sqlite_errorname)
            raise CacheUnavailable(getattr(exc, "sqlite_errorname", type(exc).__name__)) from exc
        except (OSError, ConfigurationError) as exc:
            raise CacheUnavailable("the data folder cannot be used") from exc

    def _replace(self, num_replaced: int, error: str) -> None:
        """Once for what both threads may have met."""
        with self._lock:
            if num_replaced != self._num_replaced:
                return
            self._num_replaced += 1
            self._let_go()
            if self._index is not None:
                self._index.clear()
            rows.set_aside(self._folder)
        log.error("cache_file_set_aside", file=rows.SET_ASIDE, error=error)

    def _let_go(self) -> None:
        for connection in (self._reading, self._writing):
            if connection is not None:
                connection.close()
        self._reading = self._writing = self._tally = None
