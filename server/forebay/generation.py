"""One generation while it is handed out, covered and accounted for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from forebay.admission import Ticket
from forebay.engines.base import EngineInfo
from forebay.errors import ApiError
from forebay.ledger.account import Account, Outcome
from forebay.ledger.ledger import NOTHING
from forebay.ledger.rows import EngineUse
from forebay.observe.record import RequestRecord
from forebay.queued import QueuedDeltas
from forebay.types import Delta, Deltas, GenerationRequest, Usage


class Generation:
    """The deltas of one HTTP request and what they amount to.

    Iterate it inside `patience`, then `aclose()` it (`contextlib.aclosing`), in whatever state it is: that aborts the
    engine's work and accounts for it. `usage` grows with the deltas handed out.
    """

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
        self.requests = requests
        self.info = info
        self.patience = record.patience
        self._deltas = deltas
        self._sources = sources
        # A stage that was never read does not close its source.
        self._closing = sources if deltas is sources[0] else (deltas, *sources)
        self._ticket = ticket
        self._account = account
        account.streams = sources
        self._record = record
        self._cached_tokens: dict[int, int] = {}
        self._num_choices = requests[0].num_choices
        self._prompt_tokens = sum(len(request.prompt.token_ids) for request in requests)
        self._completion_tokens = 0
        self._reasoning_tokens = 0
        self._streams = record.stream
        self._begun = time.perf_counter()
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
        usage = self.usage
        self._settle("complete", usage, usage)

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
            self._ticket.started(prompt)
        if delta.finish_reason is not None:
            record.finish_reason = delta.finish_reason
            if (times := delta.times) is not None:
                record.queue_s = times.queue_s + self._sources[prompt].queue_s
                record.prefill_s, record.decode_s = times.prefill_s, times.decode_s

    async def aclose(self) -> None:
        """Aborts what still runs and settles the account, once. Never raises for a generation that failed."""
        if self._closed:
            return
        self._closed = True
        try:
            for stream in self._closing:
                with suppress(ApiError):  # reported to the client by the iteration that raised it
                    await stream.aclose()
        finally:
            self._record.aborted = time.perf_counter()
            self._ticket.close()
            if not self._account.settled:
                self._settle_early()

    def _settle_early(self) -> None:
        """A client that leaves pays for what was generated, one that we have failed for what it was handed."""
        record = self._record
        generated = replace(
            self.usage,
            prompt_tokens=sum(
                len(request.prompt.token_ids)
                for request, source in zip(self.requests, self._sources, strict=True)
                if source.dispatched
            ),
            completion_tokens=sum(source.num_tokens for source in self._sources),
        )
        if self.patience.left_at is not None and not self._failed and record.outcome in ("ok", "client_gone"):
            self._settle("client_gone", generated, generated)
        else:
            delivered = record.stream and self._completion_tokens > 0
            begun = sum(len(self.requests[prompt].prompt.token_ids) for prompt in self._cached_tokens)
            billed = replace(self.usage, prompt_tokens=begun) if delivered else NOTHING
            self._settle("failed", billed, generated)

    def _settle(self, outcome: Outcome, billed: Usage, generated: Usage) -> None:
        record = self._record
        if record.queue_s is None or record.prefill_s is None or record.decode_s is None:
            # No choice has ended, so the engine has told no times.
            now, queue_s = time.perf_counter(), min(source.queue_s for source in self._sources)
            first = record.first_token or now
            prefill_s = max(0.0, first - self._begun - queue_s)
            record.queue_s, record.prefill_s, record.decode_s = queue_s, prefill_s, now - first
        record.usage = billed
        record.uncharged_tokens = generated.total_tokens - billed.total_tokens
        self._account.settle(
            outcome,
            billed,
            generated,
            finish_reason=record.finish_reason,
            use=EngineUse(_us(record.queue_s), _us(record.prefill_s), _us(record.decode_s)),
        )


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
