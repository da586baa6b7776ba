"""Semantic hits that are to be labelled: what was asked is generated after all, while nobody waits for the engine."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import structlog

from forebay.admission import Admission
from forebay.cache.place import Place
from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.generation import EngineGeneration
from forebay.ledger.account import NOTHING, Outcome
from forebay.ledger.rows import EngineUse
from forebay.observe.record import RequestRecord
from forebay.queued import Line
from forebay.reserving import Reserving
from forebay.types import Caller, Delta, Usage
from forebay.values import value
from forebay.work import Work, tell_apart

MAX_JOBS = 64
"""That wait. The oldest goes first where there are more: its label is lost."""

LOOK_S = 0.1
PATIENCE_S = 60.0
"""How often it is looked whether the engine has time, and how long a job waits for that."""

KEY_ID = "cache-shadow"
"""In the place of a key in the ledger's rows, and in the fair queue, where its class is `batch`."""

log = structlog.get_logger(__name__)


@value
class Job:
    """A hit's own work, and where its answer goes."""

    place: Place
    work: Work
    model: str | None


class ShadowGeneration(EngineGeneration):
    """One that no client waits for and nobody pays for: all that the engine does for it is uncharged."""

    async def _complete(self) -> None:
        self._settle_complete()

    def _settle(self, outcome: Outcome, billed: Usage, generated: Usage, use: EngineUse | None = None) -> None:
        super()._settle(outcome, NOTHING, generated, use)


class Shadow:
    """One job at a time, at the lowest priority, and only while less than half of the engine is busy and nobody waits.

    `offer` never waits; a job that is not done loses its label and nothing else.
    """

    def __init__(
        self,
        host: EngineHost,
        admission: Admission,
        line: Line,
        reserving: Reserving,
        is_quiet: Callable[[], bool],
        limit_s: float,
    ) -> None:
        """`limit_s`: what a job may take."""
        self._host = host
        self._admission = admission
        self._line = line
        self._reserving = reserving
        self._is_quiet = is_quiet
        self._limit_s = limit_s
        self._jobs: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self.num_done = 0
        self.num_dropped = 0

    def offer(self, place: Place, work: Work, model: str | None) -> None:
        """On the running loop."""
        if len(self._jobs) >= MAX_JOBS:
            self._drop(self._jobs.popleft())
        self._jobs.append(Job(place, work, model))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="cache-shadow")

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        while self._jobs:
            self._drop(self._jobs.popleft())

    async def _work(self) -> None:
        while self._jobs:
            job = self._jobs.popleft()
            try:
                engine = await self._when_quiet()
                deltas = [] if engine is None else await self._generated(job, engine)
            except asyncio.CancelledError:
                self._drop(job)
                raise
            except Exception as exc:
                log.warning("cache_shadow_failed", exc_info=exc)
                deltas = []
            if deltas:
                self.num_done += 1
                job.place.keep(deltas)
            else:
                self._drop(job)

    async def _when_quiet(self) -> Engine | None:
        """None where that does not come."""
        for _ in range(round(PATIENCE_S / LOOK_S)):
            if self._is_quiet() and (engine := self._host.current) is not None:
                return engine
            await asyncio.sleep(LOOK_S)
        return None

    async def _generated(self, job: Job, engine: Engine) -> list[Delta]:
        """The whole answer."""
        caller = Caller(job.place.caller.tenant, KEY_ID, priority="batch")
        record = RequestRecord(secrets.token_hex(16), "POST", "shadow", model=job.model, tenant=caller.tenant)
        work = replace(job.work, requests=[replace(job.work.requests[0], request_id=record.request_id)])
        ticket = self._admission.enter(1, caller)
        try:
            ticket.wait([work.prompt_tokens])
            account = await self._reserving.open_shadow(caller, record, work.prompt_tokens)
        except BaseException:
            ticket.close()
            raise
        source = self._line.join(engine, caller, work.requests[0])
        (deltas,) = tell_apart(work, [source], engine)
        run = ShadowGeneration(deltas, [source], work.requests, engine.info, ticket, account, record)
        async with aclosing(run), asyncio.timeout(self._limit_s):
            return [delta async for delta in run]

    def _drop(self, job: Job) -> None:
        self.num_dropped += 1
        job.place.lose()
