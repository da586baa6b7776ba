"""A memory tier in front of a store that lasts: it goes on alone while that one is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

import structlog

from forebay.cache.entries import Sealed
from forebay.cache.stores.base import CacheStore, CacheUnavailable, Held, Neighbour, merged
from forebay.cache.stores.giving_back import give_back
from forebay.cache.stores.memory_impl import MemoryStore
from forebay.cache.stores.waiting import Added, Waiting, Write
from forebay.stores.breaker import Breaker

if TYPE_CHECKING:
    from forebay.cache.index import Index

MAX_CALLS = 32
"""Of reads at a time; the others wait, and ask nothing if the store turns out to be away meanwhile."""

MAX_WRITES = 512
"""That wait to be written. Further ones are left out: what is not stored is generated again."""

PROBE_S = 0.5
HEAR_S = 0.5
SWEEP_S = 60.0
"""How often a store is asked whether it is back, what other servers have purged, and for what has expired."""

CLOSE_S = 1.0
"""How long what waits to be written may take at the end."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class TieredStore:
    """What the pipeline asks. Looking up never raises; what is stored is written in the background.

    A store that fails five times in a row is left alone: a probe asks for it twice a second, reads and writes by
    themselves, as one that is full can be read. When it takes writes again, or has lost what it held, it is given
    what the memory tier has and it lacks; until then what memory has is near, too.
    """

    def __init__(
        self, memory: MemoryStore, lasting: CacheStore, fresh: Index | None = None, index: Index | None = None
    ) -> None:
        """`fresh`: what is not written yet is near, too. `index`: what one of the two searches, for metrics."""
        self.index = index
        self._memory = memory
        self._lasting = lasting
        self._fresh = fresh
        self.reads = Breaker("cache_store")
        self.writes = Breaker("cache_store_writes")
        self.num_left_out = 0
        """Writes that were not even tried, because too many waited."""
        self._writing = asyncio.Lock()
        """What is being written is not overtaken by a purge of it."""
        self._lacks = False
        """The store may lack what the memory tier has."""
        self._losses = 0
        """Of the store, that were made up for."""
        self._num_purges = 0
        """What is read while something is purged may be of what goes."""
        self._places = asyncio.Semaphore(MAX_CALLS)
        self._waiting = Waiting(MAX_WRITES)
        self._probe: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """On the running loop."""
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._keep_up())]

    @property
    def num_memory_bytes(self) -> int:
        return self._memory.num_bytes

    def find(self, entry_id: str) -> Sealed | None:
        """In memory."""
        return self._memory.find(entry_id)

    async def get(self, entry_id: str) -> Sealed | None:
        found = self._memory.find(entry_id)
        if found is not None or self._lasting.lacks(entry_id):
            return found
        num_purges = self._num_purges
        found = await self._read(lambda: self._lasting.get(entry_id))
        if found is None:
            return self._memory.find(entry_id)  # another request may have stored one meanwhile
        if num_purges == self._num_purges:
            self._memory.put(found)
        return found

    async def look(self, entry_id: str) -> Sealed | None:
        """Which is no use of it. Raises `CacheUnavailable` where nobody can tell whether it is there."""
        return self._memory.peek(entry_id) or await self._lasting.get(entry_id)

    async def nearest(self, scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        """Of those in memory, too, where the store may lack some of them: it gives no answer, or fewer than `k`."""
        fresh = self._nearest_fresh(scope, embedding, k)
        stored = await self._read(lambda: self._lasting.nearest(scope, embedding, k)) or ()
        in_memory = await self._memory.nearest(scope, embedding, k) if self._lacks or len(stored) < k else ()
        return merged(k, fresh, stored, in_memory)

    def _nearest_fresh(self, scope: str, embedding: bytes, k: int) -> list[Neighbour]:
        if self._fresh is None or scope not in self._fresh:
            return []
        found = [(cosine, self._memory.peek(name)) for name, cosine in self._fresh.nearest(scope, embedding, k)]
        return [Neighbour(cosine, entry) for cosine, entry in found if entry is not None]

    def put(self, entry: Sealed) -> None:
        """Found from now on, and stored soon."""
        self._memory.put(entry)
        if self._fresh is not None and entry.embedding is not None:
            self._fresh.add(entry.scope, [(entry.id, entry.embedding)])
        # Held by the memory tier alone, so that what waits costs next to nothing.
        if not self._later((entry.id, entry.scope)) and self._fresh is not None:
            self._fresh.remove(entry.scope, entry.id)

    def touch(self, entry_id: str) -> None:
        """It was used just now."""
        self._memory.find(entry_id)
        self._later(partial(self._lasting.touch, entry_id))

    def discard(self, entry: Sealed) -> None:
        """It is not what it says it is, or of no use any more."""
        self._memory.discard(entry.id)
        self._later(partial(self._lasting.delete, entry.id))

    async def delete(self, entry_id: str) -> bool:
        """Whether it was there. Raises `CacheUnavailable`: the memory tier has forgotten it, the store has not."""
        self._num_purges += 1
        was_here = self._memory.discard(entry_id)
        async with self._writing:
            return await self._lasting.delete(entry_id) or was_here

    async def purge(self, *, tenant: str | None = None, model: str | None = None, epoch: int | None = None) -> int:
        """How many the store has lost. Raises as `delete` does. What waits to be written goes, too."""
        self._num_purges += 1
        await self._memory.purge(tenant=tenant, model=model, epoch=epoch)
        async with self._writing:
            return await self._lasting.purge(tenant=tenant, model=model, epoch=epoch)

    async def held(self) -> Mapping[str, Held]:
        """By tenant, in the store. Raises `CacheUnavailable`."""
        return await self._lasting.held()

    async def close(self) -> None:
        """Writes what waits, if that goes at once."""
        if self._tasks and not self._lacks:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._waiting.all_done(), CLOSE_S)
        tasks = [task for task in (*self._tasks, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._lasting.close()

    # Reads

    async def _read(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """None where there is no answer."""
        if self._is_away():
            return None
        async with self._places:
            if self._is_away():
                return None
            try:
                result = await call()
            except Exception as exc:
                self._note_failure(exc)
                return None
            self.reads.succeeded()
            return result

    def _note_failure(self, failure: Exception) -> None:
        self.reads.failed(_reason(failure))
        if self._is_away() and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._ask_until_it_answers())

    def _is_away(self) -> bool:
        return self.reads.is_open

    async def _ask_until_it_answers(self) -> None:
        while self.reads.is_open:
            await asyncio.sleep(PROBE_S)
            with suppress(CacheUnavailable):
                await self._lasting.ping()
                self.reads.succeeded()

    # Writes

    def _later(self, write: Write | Added) -> bool:
        """False: it is left out."""
        is_taken = self._waiting.put(write)
        self.num_left_out += not is_taken
        return is_taken

    async def _add(self, *ids: str) -> None:
        """Those that were not purged meanwhile."""
        entries = [entry for entry_id in ids if (entry := self._memory.peek(entry_id)) is not None]
        if entries:
            await self._lasting.add(*entries)

    async def _write(self) -> None:
        while True:
            if self._lacks:
                await asyncio.sleep(PROBE_S)
                self._lacks = not await self._give_back()
                continue
            writes = await self._waiting.some()
            try:
                async with self._writing:
                    await self._write_all(writes)
                self.writes.succeeded()
            except Exception as exc:
                self._lacks = True
                self.writes.failed(_reason(exc))

    async def _add_alone(self, entry_id: str) -> None:
        async with self._writing:
            await self._add(entry_id)

    async def _write_all(self, writes: Sequence[Write | Added]) -> None:
        """In their order, those that follow each other together; then nothing of them waits, written or not."""
        try:
            for are_added, group in groupby(writes, lambda write: isinstance(write, tuple)):
                if are_added:
                    await self._add(*(write[0] for write in group if isinstance(write, tuple)))
                else:
                    for write in group:
                        if not isinstance(write, tuple):
                            await write()
        finally:
            if self._fresh is not None:
                for write in writes:
                    if isinstance(write, tuple):
                        self._fresh.remove(write[1], write[0])
            self._waiting.done(len(writes))

    async def _give_back(self) -> bool:
        """To a store that is back and may have lost everything: what this server still knows. Whether it is back."""
        try:
            await self._lasting.ping(writes=True)
            await self._hear()
            losses = self._lasting.num_losses()
            num = await give_back(self._memory, self._lasting, self._add_alone)
        except Exception as exc:
            self.writes.failed(_reason(exc))
            return False
        self._losses = losses
        self.writes.succeeded()
        if num:
            log.info("cache_entries_given_back", num_entries=num)
        return True

    async def _keep_up(self) -> None:
        sweep_at = time.monotonic() + SWEEP_S
        while True:
            if not self._is_away():
                try:
                    await self._hear()
                except Exception as exc:
                    self._note_failure(exc)
            await asyncio.sleep(HEAR_S)
            if time.monotonic() >= sweep_at:
                sweep_at += SWEEP_S
                await self._memory.sweep()
                self._later(self._lasting.sweep)

    async def _hear(self) -> None:
        """What other servers have purged leaves this one's memory, too."""
        for purge in await self._lasting.purges():
            self._num_purges += 1
            if purge.entry_id is not None:
                self._memory.discard(purge.entry_id)
            else:
                await self._memory.purge(tenant=purge.tenant, model=purge.model, epoch=purge.epoch)
        if self._lasting.num_losses() != self._losses:
            self._lacks = True
            self._waiting.wake()


def _reason(failure: Exception) -> str:
    """In a word or two. What no store should raise is logged: it must not end what goes on in the background."""
    if isinstance(failure, CacheUnavailable):
        return failure.reason
    log.error("cache_store_failed", exc_info=failure)
    return type(failure).__name__
