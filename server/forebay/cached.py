"""The pipeline's way through the cache: a stored answer, one that is being generated, or one that others may read."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from forebay.admission import Admission, Ticket
from forebay.cache.families import CacheFamilies
from forebay.cache.lookup import Cache
from forebay.cache.place import Hit, Place
from forebay.drain import Drain
from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.generation import Generation
from forebay.ledger.account import NOTHING, Account
from forebay.observe.record import RequestRecord
from forebay.queued import Line, QueuedDeltas
from forebay.reserving import Reserving
from forebay.shadowing import Shadow
from forebay.shared import Share, SharedGeneration, StoredGeneration
from forebay.tenants.fairness import FairQueue
from forebay.types import Caller, Deltas
from forebay.work import Work, tell_apart


class Cached:
    """The pipeline's step between reading a request and reserving for it."""

    def __init__(
        self,
        cache: Cache,
        host: EngineHost,
        admission: Admission,
        line: Line,
        reserving: Reserving,
        shadow: Shadow | None = None,
    ) -> None:
        """`shadow`: with the semantic tier."""
        self.families = CacheFamilies(cache, shadow)
        self._shadow = shadow
        self._cache = cache
        self._host = host
        self._admission = admission
        self._line = line
        self._reserving = reserving

    async def start(
        self, caller: Caller, record: RequestRecord, engine: Engine, work: Work, ticket: Ticket
    ) -> Generation | tuple[Work, Account] | None:
        """What the request gets; None: it is by itself, and so it is where it has an account already.

        Whoever needs no engine gives his ticket back. Raises `NotCached` and what reserving raises.
        """
        assert work.ask is not None
        family = None if work.family is None else work.family.name
        found = await self._cache.look_up(caller, record, work.ask, work.requests, engine.info, family)
        if isinstance(found, Hit):
            ticket.close()
            return await self._stored(found, caller, record, engine, work)
        if found is None:
            return None
        return await self._share(found, caller, record, engine, work, ticket)

    async def close(self) -> None:
        """Idempotent."""
        if self._shadow is not None:
            await self._shadow.close()

    async def _stored(
        self, hit: Hit, caller: Caller, record: RequestRecord, engine: Engine, work: Work
    ) -> StoredGeneration:
        try:
            account = await self._reserving.reserve_hit(caller, record, hit.entry.usage, hit.kind)
        except BaseException:
            hit.own.lose()
            raise
        hit.note(record)
        again = None
        if self._shadow is not None and hit.wants_label:
            again = partial(self._shadow.offer, hit.own, work, record.model)
        return StoredGeneration(hit.entry, work.requests, engine.info, account, record, again)

    async def _share(
        self, place: Place, caller: Caller, record: RequestRecord, engine: Engine, work: Work, ticket: Ticket
    ) -> Generation | tuple[Work, Account]:
        """The place is taken before anything is waited for, so that the next one finds it."""
        joins, num_prompt_tokens = place.is_taken, [work.prompt_tokens]
        if not joins:
            ticket.wait(num_prompt_tokens)
        share = Share(partial(self._begin, caller, work), None if joins else ticket)
        reader = place.join(share.start, whole=not record.stream)
        account: Account | None = None
        try:
            affordable, account = await self._reserving.reserve(caller, record, work, shared=True, joins=joins)
            if affordable is work:
                if joins:
                    ticket.close()
                share.admit(account)
                place.note(record, "joined" if joins else "miss")
                return SharedGeneration(reader, share, work.requests, engine.info, account, record, self._cache.tell)
            # It can pay for less than the others may get, so it is by itself, with its ticket.
            share.ticket = account.cache_kind = None
            share.close()
            await reader.aclose()
            if joins:
                ticket.wait(num_prompt_tokens)
        except BaseException:
            share.close()
            await reader.aclose()
            if account is not None:
                account.settle("failed" if record.patience.left_at is None else "client_gone", NOTHING, NOTHING)
            raise
        place.note(record, "miss")
        return affordable, account

    async def _begin(self, caller: Caller, work: Work, share: Share) -> tuple[Deltas, QueuedDeltas]:
        """The engine's work for a request; one that has read along until now needs a place again."""
        engine = await self._host.engine()
        if share.ticket is None:
            share.ticket = self._admission.enter(1, caller)
            share.ticket.wait([work.prompt_tokens])
        request = replace(work.requests[0], whole=False)  # a stream may read along
        source = self._line.join(engine, caller, request)
        (deltas,) = tell_apart(work, [source], engine)
        return deltas, source


def build_cached(
    cache: Cache,
    host: EngineHost,
    admission: Admission,
    line: Line,
    queue: FairQueue,
    drain: Drain,
    reserving: Reserving,
    limit_s: float,
) -> Cached:
    """`limit_s`: what generating a hit anew may take."""

    def is_quiet() -> bool:
        is_free = host.info is not None and 2 * queue.num_running < host.info.num_slots
        return is_free and not queue.num_waiting and not drain.draining

    shadow = None
    if cache.semantic is not None:
        shadow = Shadow(host, admission, line, reserving, is_quiet, limit_s)
    return Cached(cache, host, admission, line, reserving, shadow)
