"""Identical work in flight runs once: whoever asks the same meanwhile reads along, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import aclosing
from itertools import pairwise

import structlog

from forebay.cache.catch_up import CatchUp, Diverged, is_empty
from forebay.engines.mailbox import merge_deltas
from forebay.errors import ApiError, InvalidRequest, ShuttingDown
from forebay.types import Delta, Deltas

MAX_STARTS = 3
"""How often work is begun; one that has failed so often fails for all."""

MAX_PIECES = 256
"""Deltas that are kept apart; then those that nobody stands between become one, so that tokens are what is kept."""

Start = Callable[[], Deltas]
Keep = Callable[[Sequence[Delta]], None]

log = structlog.get_logger(__name__)


class NotBegun(Exception):
    """A reader's work could not begin, for a reason that may be nobody else's. None: the reader is gone."""

    def __init__(self, reason: Exception | None) -> None:
        super().__init__()
        self.reason = reason


class Flights:
    """What is under way, by what it answers. Lives on one event loop."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight] = {}
        self.num_started = 0
        self.num_joined = 0

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._flights

    def join(self, key: Hashable, start: Start, *, keep: Keep | None = None, whole: bool = False) -> FlightReader:
        """Reads the answer that is under way under this key from its beginning, or begins one. To be closed.

        `start` begins the work, of one choice, when it is needed: at once, later where the work of another has failed,
        or never; where that raises `NotBegun`, another reader's does. `keep` is told a whole answer that it began,
        before the next one with this key would begin another; it must not wait. `whole`: of what comes after the first
        delta nothing is wanted before all is there, so nobody is woken for it.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(self, key)
            self.num_started += 1
        else:
            self.num_joined += 1
        return flight.join(start, keep, whole=whole)

    def leave(self, key: Hashable, flight: Flight) -> None:
        """The next one with this key begins anew. Idempotent."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def close(self) -> None:
        """Ends what is left; who still reads gets `ShuttingDown`."""
        await asyncio.gather(*(flight.abort() for flight in list(self._flights.values())))


class Flight:
    """One answer, written by a task of its own that waits for nobody, and read by any number of readers.

    Who began it may leave: it goes on while anybody reads. If it fails, a reader who has not begun it yet begins it
    again, and readers go on where they were, as what was told is said again; should the second run say something else,
    those who were told some of the first get its error, and the others the second.
    """

    def __init__(self, flights: Flights, key: Hashable) -> None:
        self._flights = flights
        self._key = key
        self._readers: list[FlightReader] = []
        self._deltas: list[Delta] = []
        self._merge_at = MAX_PIECES
        self._catch_up: CatchUp | None = None
        self._fresh: list[Delta] = []
        """The second run's deltas, while it catches up."""
        self._error: Exception | None = None
        self._told_error: Exception | None = None
        self._ended = False
        self._task: asyncio.Task[None] | None = None

    def join(self, start: Start, keep: Keep | None, *, whole: bool) -> FlightReader:
        reader = FlightReader(self, start, keep, whole=whole)
        self._readers.append(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return reader

    # For readers

    def read(self, reader: FlightReader) -> Delta | None:
        """What it has not read, as one delta; None where there is nothing yet. Raises what ended it."""
        if reader.error is not None:
            raise reader.error
        # Who was told nothing yet waits until it is known which run's answer it will get.
        deltas, position = self._deltas, reader.position
        if position < len(deltas) and (self._catch_up is None or position > 0):
            reader.position = len(deltas)
            return merge_deltas(deltas[position:])
        if self._error is not None:
            raise reader.refusal or self._error
        if self._ended:
            raise StopAsyncIteration
        return None

    async def leave(self, reader: FlightReader) -> None:
        """The last one ends what is under way, and waits until the engine has let go of it."""
        if reader in self._readers:
            self._readers.remove(reader)
            if not self._readers:
                await self.abort()

    async def abort(self) -> None:
        self._flights.leave(self._key, self)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
            self._error = ShuttingDown("The server shut down before the answer was complete.", retry_after_s=1)
            self._wake()

    # In its task

    async def _run(self) -> None:
        error: Exception = ApiError("The request ended before it was begun.")
        try:
            num_starts = 0
            while num_starts < MAX_STARTS:
                reader = next((one for one in self._readers if not one.began), None)
                if reader is None:
                    break
                failure = await self._attempt(reader)
                if failure is None:
                    self._ended = True
                    return
                if isinstance(failure, NotBegun):
                    reader.refusal = failure.reason
                    continue
                error, num_starts = failure, num_starts + 1
                if isinstance(error, InvalidRequest):  # which is everybody's
                    break
                self._begin_again(error)
            self._error = error
        finally:
            self._flights.leave(self._key, self)
            self._wake()

    async def _attempt(self, reader: FlightReader) -> Exception | None:
        """Why it failed, if it did."""
        try:
            async with aclosing(reader.start()) as source:
                async for delta in source:
                    self._add(delta)
        except Exception as exc:
            return exc
        if self._catch_up is not None:
            self._diverge()
        if reader.keep is not None:
            try:
                reader.keep(self._deltas)
            except Exception:
                log.exception("cache_entry_not_kept")
        return None

    def _begin_again(self, error: Exception) -> None:
        """What nobody was told is forgotten."""
        told = max((reader.position for reader in self._readers), default=0)
        self._told_error = error
        del self._deltas[told:]
        self._fresh = []
        self._catch_up = CatchUp(merge_deltas(self._deltas)) if told else None

    def _add(self, delta: Delta) -> None:
        if self._catch_up is not None:
            self._fresh.append(delta)
            try:
                delta = self._catch_up.push(delta)
            except Diverged:
                self._diverge()
                return
            if self._catch_up.done:
                self._catch_up, self._fresh = None, []
            if is_empty(delta):
                return
        self._deltas.append(delta)
        if len(self._deltas) >= self._merge_at:
            self._merge()
        self._wake()

    def _diverge(self) -> None:
        self._catch_up = None
        for reader in self._readers:
            if reader.position > 0:
                reader.position, reader.error = 0, self._told_error
        self._deltas, self._fresh = self._fresh, []
        self._wake()

    def _merge(self) -> None:
        places = sorted({0, len(self._deltas), *(reader.position for reader in self._readers)})
        merged = [merge_deltas(self._deltas[a:b]) for a, b in pairwise(places)]
        now_at = {place: i for i, place in enumerate(places)}
        for reader in self._readers:
            reader.position = now_at[reader.position]
        self._deltas = merged
        self._merge_at = len(merged) + MAX_PIECES

    def _wake(self) -> None:
        goes_on = not self._ended and self._error is None
        for reader in self._readers:
            if goes_on and reader.whole and reader.position > 0:
                continue
            waiter = reader.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


class FlightReader:
    """One reader's deltas: those that it has not read yet come as one. Closing it is leaving."""

    __slots__ = ("_flight", "_start", "began", "error", "keep", "position", "refusal", "waiter", "whole")

    def __init__(self, flight: Flight, start: Start, keep: Keep | None, *, whole: bool) -> None:
        self._flight = flight
        self._start = start
        self.waiter: asyncio.Future[None] | None = None
        """Its own, until there is something to read."""
        self.keep = keep
        self.whole = whole
        self.began = False
        """Its own work is, or was, what is read."""
        self.position = 0
        self.error: Exception | None = None
        self.refusal: Exception | None = None
        """Why its own work could not begin; told where nobody else's has ended well."""

    def start(self) -> Deltas:
        self.began = True
        return self._start()

    def __aiter__(self) -> FlightReader:
        return self

    async def __anext__(self) -> Delta:
        while (delta := self._flight.read(self)) is None:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return delta

    async def aclose(self) -> None:
        """Idempotent."""
        await self._flight.leave(self)
