"""The path of every generation: admit -> look up -> generate -> account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from forebay.admission import Admission, Ticket
from forebay.drain import Drain
from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.errors import ShuttingDown
from forebay.generation import EngineGeneration, Generation
from forebay.ledger.account import NOTHING, Account
from forebay.merge import merge
from forebay.observe.record import RequestRecord
from forebay.queued import Line, QueuedDeltas
from forebay.reserving import Reserving
from forebay.types import Caller
from forebay.work import Work, tell_apart

if TYPE_CHECKING:
    from forebay.cached import Cached

T = TypeVar("T")


class Pipeline:
    """Built once; every generation of every route goes through `start`, other work of the engine through `read`."""

    def __init__(
        self,
        host: EngineHost,
        admission: Admission,
        reading: Admission,
        line: Line,
        drain: Drain,
        reserving: Reserving,
        cached: Cached | None = None,
    ) -> None:
        """`reading` bounds those who want texts read and nothing generated. `cached`: None without a cache."""
        self._host = host
        self._admission = admission
        self._reading = reading
        self._line = line
        self._drain = drain
        self._reserving = reserving
        self._cached = cached

    async def start(
        self,
        caller: Caller,
        record: RequestRecord,
        num_sequences: int,
        prepare: Callable[[Engine], Awaitable[Work]],
    ) -> Generation:
        """Admits what `prepare` makes of the request's text; request i's choices get indices `i * num_choices + j`.

        The place is taken first: loading and reading are work that waits, too. Raises `RateLimited`, `QuotaExceeded`,
        `Unavailable`, `RequestTimeout` and what `prepare` raises. The result must be closed.
        """
        self._reserving.peek(caller, record.fingerprint)
        ticket = self._enter(self._admission, num_sequences, caller)
        account: Account | None = None
        sources: list[QueuedDeltas] = []
        try:
            with record.patience:
                engine = await self._host.engine()
                work = await prepare(engine)
                for request in work.requests:
                    engine.check(request)
                if self._cached is not None and work.ask is not None:
                    found = await self._cached.start(caller, record, engine, work, ticket)
                    if isinstance(found, Generation):
                        return found
                    if found is not None:
                        work, account = found
                if account is None:
                    ticket.wait([len(request.prompt.token_ids) for request in work.requests])
                    work, account = await self._reserving.reserve(caller, record, work)
            sources.extend(self._line.join(engine, caller, request) for request in work.requests)
        except BaseException:
            ticket.close()
            for source in sources:
                await source.aclose()
            if account is not None:
                account.settle("failed" if record.patience.left_at is None else "client_gone", NOTHING, NOTHING)
            raise
        deltas = merge(tell_apart(work, sources, engine), work.requests[0].num_choices)
        return EngineGeneration(deltas, sources, work.requests, engine.info, ticket, account, record)

    async def read(self, record: RequestRecord, work: Callable[[Engine], Awaitable[T]]) -> T:
        """`work` of the engine that generates nothing. Raises what `start` raises."""
        ticket = self._enter(self._reading, 1)
        try:
            with record.patience:
                return await work(await self._host.engine())
        finally:
            ticket.close()

    def _enter(self, admission: Admission, num_sequences: int, caller: Caller | None = None) -> Ticket:
        if self._drain.draining:
            raise ShuttingDown("The server is shutting down.", retry_after_s=1)
        return admission.enter(num_sequences, caller)
