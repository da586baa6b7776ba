"""The path of every generation: admit -> generate -> account."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from forebay.admission import Admission, Ticket
from forebay.chat.reasoning import ReasoningFamily, split_reasoning
from forebay.drain import Drain
from forebay.engines.base import Engine, EngineInfo
from forebay.engines.host import EngineHost
from forebay.errors import ApiError, RequestTimeout, ShuttingDown
from forebay.ledger.account import Account, EngineUse, Outcome
from forebay.ledger.ledger import NOTHING, Ledger
from forebay.merge import merge
from forebay.observe.record import RequestRecord
from forebay.queued import QueuedDeltas
from forebay.tenants.fairness import FairQueue
from forebay.tenants.guard import Guard
from forebay.types import Caller, Delta, Deltas, GenerationRequest, Sampling, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Work:
    """What one HTTP request asks of the engine, once its text has been read; all have the same `num_choices`."""

    requests: Sequence[GenerationRequest]
    family: ReasoningFamily | None = None
    include_reasoning: bool = True
    can_clamp: bool = False
    """The client has set no limit to its tokens, so answers may end earlier where a budget affords less."""

    @property
    def prompt_tokens(self) -> int:
        return sum(len(request.prompt.token_ids) for request in self.requests)

    @property
    def max_completion_tokens(self) -> int:
        return sum(request.num_choices * request.sampling.max_tokens for request in self.requests)

    def clamped(self, max_completion_tokens: int) -> Work:
        """The same with at most so many tokens, evenly for all choices."""
        if max_completion_tokens >= self.max_completion_tokens:
            return self
        each = max_completion_tokens // sum(request.num_choices for request in self.requests)
        return replace(
            self,
            requests=[replace(request, sampling=_shortened(request.sampling, each)) for request in self.requests],
        )


def _shortened(sampling: Sampling, max_tokens: int) -> Sampling:
    most = min(sampling.max_tokens, max_tokens)
    return replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))


class Pipeline:
    """Built once; every generation of every route goes through `start`, other work of the engine through `read`."""

    def __init__(
        self,
        host: EngineHost,
        admission: Admission,
        reading: Admission,
        queue: FairQueue,
        drain: Drain,
        guard: Guard,
        ledger: Ledger,
        *,
        secret: bytes,
        request_timeout_s: float,
    ) -> None:
        """`reading` bounds those who want texts read and nothing generated."""
        self._host = host
        self._admission = admission
        self._reading = reading
        self._queue = queue
        self._drain = drain
        self._guard = guard
        self._ledger = ledger
        self._secret = secret
        self._request_timeout_s = request_timeout_s

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
        self._guard.peek(caller, record.fingerprint)
        ticket = self._enter(self._admission, num_sequences, caller)
        account: Account | None = None
        sources: list[QueuedDeltas] = []
        try:
            async with self.in_time(record):
                engine = await self._host.engine()
                work = await prepare(engine)
                for request in work.requests:
                    engine.check(request)
                ticket.wait([len(request.prompt.token_ids) for request in work.requests])
                work, account = await self._reserve(caller, record, work)
            salt = self._cache_salt(caller)
            for request in work.requests:
                turn = self._queue.join(caller, request.num_choices, len(request.prompt.token_ids))
                sources.append(QueuedDeltas(engine, replace(request, cache_salt=salt), turn))
        except BaseException:
            ticket.close()
            for source in sources:
                await source.aclose()
            if account is not None:
                account.settle("failed" if record.client_left is None else "client_gone", NOTHING, NOTHING)
            raise
        streams: list[Deltas] = [*sources]
        if (family := work.family) is not None:
            streams = [
                split_reasoning(source, family, request.prompt, work.include_reasoning, engine.token_strings)
                for source, request in zip(sources, work.requests, strict=True)
            ]
        deltas = merge(streams, work.requests[0].num_choices)
        return Generation(
            deltas, sources, work.requests, engine.info, ticket, account, record, partial(self.in_time, record)
        )

    async def _reserve(self, caller: Caller, record: RequestRecord, work: Work) -> tuple[Work, Account]:
        """Holds the most that the work may come to, of limits and budgets and in the ledger.

        Raises `RateLimited`, `QuotaExceeded`, `StorageUnavailable`.
        """
        prompt_tokens = work.prompt_tokens
        price = self._ledger.price_of(record.model or "")
        hold = await self._guard.admit(
            caller,
            prompt_tokens=prompt_tokens,
            max_completion_tokens=work.max_completion_tokens,
            can_clamp=work.can_clamp,
            num_choices=sum(request.num_choices for request in work.requests),
            cost=None if price is None else partial(price.most, prompt_tokens),
            fingerprint=record.fingerprint,
        )
        record.answer_headers.update(hold.headers)
        account = await self._ledger.open(
            caller,
            record,
            at=hold.at,
            prompt_tokens=prompt_tokens,
            completion_tokens=hold.max_completion_tokens,
            cost=hold.cost,
            on_settled=hold.settle,
        )
        return work.clamped(hold.max_completion_tokens), account

    async def read(self, record: RequestRecord, work: Callable[[Engine], Awaitable[T]]) -> T:
        """`work` of the engine that generates nothing. Raises what `start` raises."""
        ticket = self._enter(self._reading, 1)
        try:
            async with self.in_time(record):
                return await work(await self._host.engine())
        finally:
            ticket.close()

    @asynccontextmanager
    async def in_time(self, record: RequestRecord) -> AsyncIterator[None]:
        """Around everything that a request waits for, the time of all of it together being limited.

        Raises `RequestTimeout` at the deadline, `ShuttingDown` when the server may wait no longer.
        """
        left_s = record.started + self._request_timeout_s - time.perf_counter()
        try:
            async with self._drain.deadline(asyncio.get_running_loop().time() + left_s):
                yield
        except TimeoutError:
            if self._drain.forced:
                raise ShuttingDown("The server shut down before the answer was complete.", retry_after_s=1) from None
            raise RequestTimeout(f"The request took longer than {self._request_timeout_s:g} s.") from None

    def _enter(self, admission: Admission, num_sequences: int, caller: Caller | None = None) -> Ticket:
        if self._drain.draining:
            raise ShuttingDown("The server is shutting down.", retry_after_s=1)
        return admission.enter(num_sequences, caller)

    def _cache_salt(self, caller: Caller) -> str:
        """Tenants share no prefix cache, so none can time another's prompts (CVE-2025-46570)."""
        return hmac.new(self._secret, caller.tenant.encode(), hashlib.sha256).hexdigest()[:32]


class Generation:
    """The deltas of one HTTP request and what they amount to.

    Iterate it inside `in_time()` (see `Pipeline.in_time`), then `aclose()` it (`contextlib.aclosing`), in whatever
    state it is: that aborts the engine's work and accounts for it. `usage` grows with the deltas handed out.
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
        in_time: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self.requests = requests
        self.info = info
        self.in_time = in_time
        self._deltas = deltas
        self._sources = sources
        self._ticket = ticket
        self._account = account
        account.streams = sources
        self._record = record
        self._cached_tokens: dict[int, int] = {}
        self._num_choices = requests[0].num_choices
        self._prompt_tokens = sum(len(request.prompt.token_ids) for request in requests)
        self._completion_tokens = 0
        self._reasoning_tokens = 0
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
            if self._record.stream:
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
        if not self._record.stream:
            await self._account.cover(self._completion_tokens)
        self._settle("complete", self.usage, self.usage)

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
                record.queue_s, record.prefill_s, record.decode_s = times.queue_s, times.prefill_s, times.decode_s

    async def aclose(self) -> None:
        """Aborts what still runs and settles the account, once. Never raises for a generation that failed."""
        if self._closed:
            return
        self._closed = True
        try:
            for stream in (self._deltas, *self._sources):  # a stage that was never read does not close its source
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
        if record.client_left is not None and not self._failed and record.outcome in ("ok", "client_gone"):
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
            use=EngineUse(*(round(seconds * 1e6) for seconds in (record.queue_s, record.prefill_s, record.decode_s))),
        )
