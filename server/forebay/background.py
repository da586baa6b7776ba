"""What the server asks of the engine for itself: only while nobody waits, at the lowest priority, charged to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.errors import EngineUnavailable
from forebay.ledger.ledger import Ledger
from forebay.ledger.own import OwnWork
from forebay.queued import Line
from forebay.types import CountedDeltas, Delta, EngineWork, GenerationRequest, Usage

LOWEST = 1 << 30
"""Place in the engine's own queue: behind all that the fair queue hands out."""

MAX_RUNNING = 4
LOOK_EVERY_S = 0.02


class OwnDeltas:
    """What the engine gives for it, and how much that is."""

    def __init__(self, source: CountedDeltas, num_prompt_tokens: int) -> None:
        self._source = source
        self._num_prompt_tokens = num_prompt_tokens
        self._num_cached_tokens: int | None = None
        self.complete = False

    @property
    def num_tokens(self) -> int:
        return self._source.num_tokens

    @property
    def work(self) -> EngineWork:
        return self._source.work

    @property
    def usage(self) -> Usage:
        """So far. Of one that was cut short before its first token, what the engine says it has read."""
        prompt, cached = self._num_prompt_tokens, self._num_cached_tokens
        if cached is None:
            prompt, cached = self.work.prompt_tokens, 0
        return Usage(prompt, self.num_tokens, cached)

    def __aiter__(self) -> OwnDeltas:
        return self

    async def __anext__(self) -> Delta:
        try:
            delta = await anext(self._source)
        except StopAsyncIteration:
            self.complete = True
            raise
        if self._num_cached_tokens is None:
            self._num_cached_tokens = delta.num_cached_tokens
        return delta

    async def aclose(self) -> None:
        await self._source.aclose()


class Background:
    """Lives on the event loop: `tick` every second, `close` at the end."""

    def __init__(self, host: EngineHost, line: Line, ledger: Ledger) -> None:
        self._host = host
        self._line = line
        self._own = OwnWork(ledger)
        self._running = asyncio.Semaphore(MAX_RUNNING)
        self.tick = self._own.tick
        self.close = self._own.close

    @asynccontextmanager
    async def run(self, request: GenerationRequest, tenant: str) -> AsyncIterator[OwnDeltas]:
        """The deltas of `request`, of one choice, once nobody waits for the engine and a slot is to spare.

        Leaving the context, in whatever way, aborts what has not ended. Whose text it holds, `tenant`, shares the
        prefix cache with it and with nobody else. Raises `EngineUnavailable`, `StorageUnavailable` and what the engine
        raises.
        """
        async with self._running:
            while not self._line.has_room:  # noqa: ASYNC110 - whatever ends or comes changes it
                await asyncio.sleep(LOOK_EVERY_S)
            account = await self._own.begin(self._engine().info.model_id)
            deltas: OwnDeltas | None = None
            try:
                source = self._engine().generate(request.dispatched(LOWEST, self._line.salt(tenant)))
                deltas = OwnDeltas(source, len(request.prompt.token_ids))
                account.add(deltas)
                yield deltas
            finally:
                try:
                    if deltas is not None:
                        # Shielded: whoever stops waiting for it must not leave before it is counted.
                        with anyio.CancelScope(shield=True):
                            await deltas.aclose()
                finally:
                    self._own.end(account, complete=deltas is None or deltas.complete)

    def _engine(self) -> Engine:
        engine = self._host.current
        if engine is None:
            raise EngineUnavailable("No engine is ready.")
        return engine
