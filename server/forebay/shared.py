"""Generations that have not the engine to themselves: what was stored, and what several read at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

from forebay.admission import Ticket
from forebay.cache.entries import Entry
from forebay.cache.flight import FlightReader, NotBegun
from forebay.engines.base import EngineInfo
from forebay.errors import ApiError
from forebay.generation import Generation, us
from forebay.ledger.account import NOTHING, Account
from forebay.ledger.rows import EngineUse
from forebay.observe.record import RequestRecord
from forebay.queued import QueuedDeltas
from forebay.types import Delta, Deltas, EngineTimes, GenerationRequest, Usage


class StoredGeneration(Generation):
    """One from the cache. A client that leaves it pays for all of it, as it was there."""

    def __init__(
        self,
        entry: Entry,
        requests: Sequence[GenerationRequest],
        info: EngineInfo,
        account: Account,
        record: RequestRecord,
        then: Callable[[], None] | None = None,
    ) -> None:
        """`then` is called when the client has it, or has left."""
        super().__init__(_Replay(entry.deltas), requests, info, account, record)
        self._then = then
        self._prompt_tokens = entry.usage.prompt_tokens
        self._whole = entry.usage

    async def _close(self) -> None:
        if self._then is not None:
            self._then()

    def _settle_complete(self) -> None:
        self._settle("complete", self.usage, NOTHING)

    def _settle_early(self) -> None:
        if self._left:
            self._settle("client_gone", self._whole if self._cached_tokens else NOTHING, NOTHING)
        else:
            self._settle("failed", self.usage if self._streams and self._completion_tokens else NOTHING, NOTHING)


class _Replay:
    """Stored deltas, as an engine would hand them out."""

    def __init__(self, deltas: Sequence[Delta]) -> None:
        self._deltas: Iterator[Delta] = iter(deltas)

    def __aiter__(self) -> _Replay:
        return self

    async def __anext__(self) -> Delta:
        for delta in self._deltas:
            return delta
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Nothing is let go of."""


Begin = Callable[["Share"], Awaitable[tuple[Deltas, QueuedDeltas]]]


class Share:
    """A request's part in a flight: its work, should it be the one to begin it, which waits until the request is in
    the ledger. `ticket` is its place in the queue, while it has one."""

    def __init__(self, begin: Begin, ticket: Ticket | None) -> None:
        self.begin = begin
        self.ticket = ticket
        self.account: Account | None = None
        self.run: Run | None = None
        self.decided = asyncio.Event()
        """Whether it is in the ledger, or will not be."""

    def start(self) -> Run:
        self.run = Run(self)
        return self.run

    def admit(self, account: Account) -> None:
        self.account = account
        self.decided.set()

    def close(self) -> None:
        """Nothing is begun for it any more. Idempotent."""
        self.decided.set()
        if self.ticket is not None and (self.run is None or self.run.ended):
            self.ticket.close()


class Run:
    """The deltas of what the engine does for one request, whoever reads them. `ended`: it is let go of, so that what it
    has generated is final; `failed`: by an error."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._deltas: Deltas | None = None
        self._source: QueuedDeltas | None = None
        self._prompt_tokens = 0
        self._reasoning_tokens = 0
        self._first_at: float | None = None
        self._begun_at = 0.0
        self._times: EngineTimes | None = None
        self.cached_tokens = 0
        self.failed = False
        self.ended = False
        self.on_end: Callable[[], None] | None = None

    @property
    def generated(self) -> Usage:
        source = self._source
        if source is None or not source.dispatched:
            return NOTHING
        return Usage(self._prompt_tokens, source.num_tokens, self.cached_tokens, self._reasoning_tokens)

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> Delta:
        try:
            if self._deltas is None:
                self._deltas = await self._begin()
            delta = await anext(self._deltas)
        except Exception as exc:
            self.failed = not isinstance(exc, StopAsyncIteration)
            raise
        if self._first_at is None:
            self._first_at = time.perf_counter()
            self.cached_tokens = delta.num_cached_tokens
            assert self._share.ticket is not None
            self._share.ticket.started(0)
        self._reasoning_tokens += delta.num_reasoning_tokens
        self._times = delta.times
        if (account := self._share.account) is not None:
            account.opened = time.monotonic()  # others may read on for longer than one request may take
        return delta

    async def _begin(self) -> Deltas:
        share = self._share
        await share.decided.wait()
        if share.account is None:
            raise NotBegun(None)
        try:
            deltas, self._source = await share.begin(share)
        except ApiError as exc:
            raise NotBegun(exc) from exc
        self._begun_at = time.perf_counter()
        self._prompt_tokens = self._source.num_prompt_tokens
        share.account.streams = (self._source,)
        return deltas

    async def aclose(self) -> None:
        try:
            await _close(self._deltas)
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            await _close(self._source)  # which a stage that was never read does not do
        finally:
            if self._share.ticket is not None:
                self._share.ticket.close()
            self.ended = True
            if self.on_end is not None:
                self.on_end()

    def note_use(self, record: RequestRecord) -> EngineUse:
        """Seconds that it took, into the record."""
        source, times = self._source, self._times
        if source is None:
            return EngineUse()
        if times is not None:
            record.queue_s, record.prefill_s = times.queue_s + source.queue_s, times.prefill_s
            record.decode_s = times.decode_s
        else:
            now = time.perf_counter()
            first = self._first_at or now
            record.queue_s = source.queue_s
            record.prefill_s, record.decode_s = max(0.0, first - self._begun_at - source.queue_s), now - first
        return EngineUse(us(record.queue_s), us(record.prefill_s), us(record.decode_s))


async def _close(stream: Deltas | None) -> None:
    if stream is not None:
        with suppress(ApiError):  # told by the iteration that raised it
            await stream.aclose()


class SharedGeneration(Generation):
    """One that reads a flight. Who has begun what is read pays for what the engine does, at the price of generating,
    for as long as it does it; who reads along pays for what he is handed, at the price of the cache."""

    def __init__(
        self,
        reader: FlightReader,
        share: Share,
        requests: Sequence[GenerationRequest],
        info: EngineInfo,
        account: Account,
        record: RequestRecord,
        tell: Callable[[RequestRecord], None],
    ) -> None:
        """`tell` logs and counts the request, where others read on after it."""
        super().__init__(reader, requests, info, account, record)
        self._reader = reader
        self._share = share
        self._tell = tell
        self._leaves = False

    async def _close(self) -> None:
        self._leaves = self._left
        self._share.decided.set()
        await self._reader.aclose()
        self._share.close()

    def _settle_complete(self) -> None:
        run = self._run_to_pay()
        if run is None:
            self._settle("complete", self.usage, self._generated)
            return
        usage = self.usage
        self._settle("complete", usage, usage, run.note_use(self._record))

    def _settle_early(self) -> None:
        run = self._share.run
        if run is None or run.ended:
            self._settle_closed()
        else:
            self._record.told_elsewhere = True
            run.on_end = self._settle_late

    def _settle_late(self) -> None:
        """Others have read on, and now its work has ended."""
        record = self._record
        self._settle_closed()
        if record.ended is None:
            record.told_elsewhere = False
        else:
            self._tell(record)

    def _settle_closed(self) -> None:
        run, generated = self._run_to_pay(), self._generated
        handed = self.usage if self._completion_tokens else NOTHING
        if run is not None:
            use = run.note_use(self._record)
            if self._leaves:
                self._settle("client_gone", generated, generated, use)
            else:
                self._settle("failed", handed if self._streams else NOTHING, generated, use)
        elif self._leaves:
            self._settle("client_gone", handed, generated)
        else:
            self._settle("failed", handed if self._streams else NOTHING, generated)

    def _run_to_pay(self) -> Run | None:
        """Its own, where that is what was read; the account is told which it is."""
        run = self._share.run
        if run is not None and (
            run.generated.completion_tokens < self._completion_tokens or (run.failed and not self._failed)
        ):
            run = None
        if run is None:
            if self._share.run is not None or self._completion_tokens:
                self._account.cache_kind = "joined"
        else:
            self._account.cache_kind = None
            if self._cached_tokens:  # some of it may have come from another run
                self._cached_tokens[0] = run.cached_tokens
        return run

    @property
    def _generated(self) -> Usage:
        """For it, in vain or not."""
        run = self._share.run
        return NOTHING if run is None else run.generated
