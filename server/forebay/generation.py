"""One generation while it is handed out, covered and accounted for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from forebay.admission import Ticket
from forebay.engines.base import EngineInfo
from forebay.errors import ApiError
from forebay.ledger.account import NOTHING, Account, Outcome
from forebay.ledger.rows import EngineUse
from forebay.observe.record import RequestRecord
from forebay.queued import QueuedDeltas
from forebay.types import Delta, Deltas, EngineTimes, GenerationRequest, Usage


class Connection(Protocol):
    """A client's, in the middle of an answer."""

    @property
    def is_open(self) -> bool:
        """Whether it takes a piece at once."""

    def write_piece(self, piece: bytes) -> None:
        """Only while it is open."""


class Generation:
    """The deltas of one HTTP request and what they amount to.

    Iterate it inside `patience`, then `aclose()` it (`contextlib.aclosing`), in whatever state it is: that aborts the
    engine's work and accounts for it. `usage` grows with the deltas handed out. Kinds of it tell where deltas come
    from, and what is charged for those that were not handed out.
    """

    def __init__(
        self,
        deltas: Deltas,
        requests: Sequence[GenerationRequest],
        info: EngineInfo,
        account: Account,
        record: RequestRecord,
    ) -> None:
        self.requests = requests
        self.info = info
        self.patience = record.patience
        self._deltas = deltas
        self._account = account
        self._record = record
        self._cached_tokens: dict[int, int] = {}
        self._num_choices = requests[0].num_choices
        self._prompt_tokens = sum(len(request.prompt.token_ids) for request in requests)
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._streams = record.stream
        self._failed = False
        self._closed = False

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_tokens=sum(self._cached_tokens.values()),
            reasoning_tokens=self._reasoning_tokens,
        )

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Delta:
        """Nothing is handed out that the ledger does not cover; after the last delta the account is settled."""
        try:
            delta = await anext(self._deltas)
            if self._streams:
                num_tokens = self._completion_tokens + len(delta.token_ids)
                if not self._account.covers(num_tokens):
                    await self._account.cover(num_tokens)
        except StopAsyncIteration:
            await self._complete()
            raise
        except Exception:
            self._failed = True
            raise
        self._count(delta)
        return delta

    async def _complete(self) -> None:
        """A whole answer leaves at once, so it is covered at once."""
        if not self._streams:
            await self._account.cover(self._completion_tokens)
        self._settle_complete()

    def _count(self, delta: Delta) -> None:
        record = self._record
        if delta.token_ids:
            record.last_token = time.perf_counter()
            if record.first_token is None:
                record.first_token = record.last_token
            self._completion_tokens += len(delta.token_ids)
        self._reasoning_tokens += delta.num_reasoning_tokens
        prompt = delta.index // self._num_choices
        if prompt not in self._cached_tokens:
            # Later choices of a prompt also find what the first one has put into the cache.
            self._cached_tokens[prompt] = delta.num_cached_tokens
            self._started(prompt)
        if delta.finish_reason is not None:
            record.finish_reason = delta.finish_reason
            if delta.times is not None:
                self._note_times(prompt, delta.times)

    async def aclose(self) -> None:
        """Aborts what still runs and settles the account, once. Never raises for a generation that failed."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._close()
        finally:
            self._record.aborted = time.perf_counter()
            if not self._account.settled:
                self._settle_early()

    @property
    def _delivered(self) -> Usage:
        """Of a stream what was handed out, with the prompts of choices that have begun; else nothing."""
        if not (self._streams and self._completion_tokens):
            return NOTHING
        begun = sum(len(self.requests[prompt].prompt.token_ids) for prompt in self._cached_tokens)
        return replace(self.usage, prompt_tokens=begun)

    @property
    def _left(self) -> bool:
        """Nothing failed: the client has gone."""
        return self.patience.left_at is not None and not self._failed and self._record.outcome in ("ok", "client_gone")

    def _settle(self, outcome: Outcome, billed: Usage, generated: Usage, use: EngineUse | None = None) -> None:
        record = self._record
        record.usage = billed
        charged = billed if self._account.cache_kind is None else NOTHING
        record.uncharged_tokens = generated.total_tokens - charged.total_tokens
        self._account.settle(outcome, billed, generated, finish_reason=record.finish_reason, use=use)

    def hand_to(self, connection: Connection, chunk: Callable[[Delta], bytes]) -> None:
        """Where an engine's delta needs no waiting its `chunk` is written as it comes, and nobody is woken; iterating
        gives the others, the last one among them. After the first delta."""

    # What its kinds know

    def _started(self, prompt: int) -> None:
        """The first delta of this prompt has come."""

    def _note_times(self, prompt: int, times: EngineTimes) -> None:
        """A choice of this prompt has ended."""

    async def _close(self) -> None:
        """Aborts what still runs."""
        raise NotImplementedError

    def _settle_complete(self) -> None:
        """All was handed out."""
        raise NotImplementedError

    def _settle_early(self) -> None:
        """Not all of it, and it is closed."""
        raise NotImplementedError


class EngineGeneration(Generation):
    """One for which the engine works, and for no other."""

    def __init__(
        self,
        deltas: Deltas,
        sources: Sequence[QueuedDeltas],
        requests: Sequence[GenerationRequest],
        info: EngineInfo,
        ticket: Ticket,
        account: Account,
        record: RequestRecord,
    ) -> None:
        super().__init__(deltas, requests, info, account, record)
        self._sources = sources
        # A stage that was never read does not close its source.
        self._closing = sources if deltas is sources[0] else (deltas, *sources)
        self._ticket = ticket
        account.streams = sources
        self._begun = time.perf_counter()

    def hand_to(self, connection: Connection, chunk: Callable[[Delta], bytes]) -> None:
        source = self._sources[0]
        if self._deltas is not source:
            return  # something in between makes other deltas of them
        account, patience = self._account, self.patience

        def take(delta: Delta) -> bool:
            if delta.finish_reason is not None or patience.over or not connection.is_open:
                return False
            if not account.covers(self._completion_tokens + len(delta.token_ids)):
                return False
            self._count(delta)
            if piece := chunk(delta):
                connection.write_piece(piece)
            return True

        source.hand_to(take)

    def _started(self, prompt: int) -> None:
        self._ticket.started(prompt)

    def _note_times(self, prompt: int, times: EngineTimes) -> None:
        record = self._record
        record.queue_s = times.queue_s + self._sources[prompt].queue_s
        record.prefill_s, record.decode_s = times.prefill_s, times.decode_s

    async def _close(self) -> None:
        try:
            for stream in self._closing:
                with suppress(ApiError):  # reported to the client by the iteration that raised it
                    await stream.aclose()
        finally:
            self._ticket.close()

    def _settle_complete(self) -> None:
        usage = self.usage
        self._settle("complete", usage, usage, self._use())

    def _settle_early(self) -> None:
        """A client that leaves pays for what was generated, one that we have failed for what it was handed."""
        generated = replace(
            self.usage,
            prompt_tokens=sum(
                len(request.prompt.token_ids)
                for request, source in zip(self.requests, self._sources, strict=True)
                if source.dispatched
            ),
            completion_tokens=sum(source.num_tokens for source in self._sources),
        )
        if self._left:
            self._settle("client_gone", generated, generated, self._use())
        else:
            self._settle("failed", self._delivered, generated, self._use())

    def _use(self) -> EngineUse:
        record = self._record
        if record.queue_s is None or record.prefill_s is None or record.decode_s is None:
            # No choice has ended, so the engine has told no times.
            now, queue_s = time.perf_counter(), min(source.queue_s for source in self._sources)
            first = record.first_token or now
            prefill_s = max(0.0, first - self._begun - queue_s)
            record.queue_s, record.prefill_s, record.decode_s = queue_s, prefill_s, now - first
        return EngineUse(us(record.queue_s), us(record.prefill_s), us(record.decode_s))


def us(seconds: float) -> int:
    return round(seconds * 1e6)
