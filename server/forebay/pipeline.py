"""The path of every generation: admit -> generate -> account."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from forebay.admission import Admission, Ticket
from forebay.chat.reasoning import split_reasoning
from forebay.drain import Drain
from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.errors import ShuttingDown
from forebay.generation import Generation
from forebay.ledger.account import Account
from forebay.ledger.ledger import NOTHING, Ledger
from forebay.merge import merge
from forebay.observe.record import RequestRecord
from forebay.queued import QueuedDeltas
from forebay.tenants.fairness import FairQueue
from forebay.tenants.guard import Guard
from forebay.types import Caller, Deltas
from forebay.work import Work

MAX_SALTS = 1024

T = TypeVar("T")


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
        self._salts: dict[str, str] = {}

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
            with record.patience:
                engine = await self._host.engine()
                work = await prepare(engine)
                for request in work.requests:
                    engine.check(request)
                ticket.wait([len(request.prompt.token_ids) for request in work.requests])
                work, account = await self._reserve(caller, record, work)
            salt = self._cache_salt(caller)
            for request in work.requests:
                turn = self._queue.join(caller, request.num_choices, len(request.prompt.token_ids))
                sources.append(QueuedDeltas(engine, request, turn, salt))
        except BaseException:
            ticket.close()
            for source in sources:
                await source.aclose()
            if account is not None:
                account.settle("failed" if record.patience.left_at is None else "client_gone", NOTHING, NOTHING)
            raise
        streams: Sequence[Deltas] = sources
        if (family := work.family) is not None:
            streams = [
                split_reasoning(source, family, request.prompt, work.include_reasoning, engine.token_strings)
                for source, request in zip(sources, work.requests, strict=True)
            ]
        deltas = merge(streams, work.requests[0].num_choices)
        return Generation(deltas, sources, work.requests, engine.info, ticket, account, record)

    async def _reserve(self, caller: Caller, record: RequestRecord, work: Work) -> tuple[Work, Account]:
        """Holds the most that the work may come to, of limits and budgets and in the ledger.

        Raises `RateLimited`, `QuotaExceeded`, `StorageUnavailable`.
        """
        prompt_tokens, max_completion_tokens = work.prompt_tokens, work.max_completion_tokens
        price = self._ledger.price_of(record.model or "")
        hold = await self._guard.admit(
            caller,
            prompt_tokens=prompt_tokens,
            max_completion_tokens=max_completion_tokens,
            can_clamp=work.can_clamp,
            num_choices=work.num_choices,
            cost=None if price is None else partial(price.most, prompt_tokens),
            fingerprint=record.fingerprint,
        )
        record.answer_headers += hold.raw_headers
        try:
            account = await self._ledger.open(
                caller,
                record,
                at=hold.at,
                prompt_tokens=prompt_tokens,
                completion_tokens=hold.max_completion_tokens,
                cost=hold.cost,
                on_settled=hold.settle,
            )
        except BaseException:
            hold.settle(0, 0)
            raise
        if hold.max_completion_tokens < max_completion_tokens:
            work = work.clamped(hold.max_completion_tokens)
        return work, account

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

    def _cache_salt(self, caller: Caller) -> str:
        """Tenants share no prefix cache, so none can time another's prompts (CVE-2025-46570)."""
        salt = self._salts.get(caller.tenant)
        if salt is None:
            if len(self._salts) >= MAX_SALTS:
                self._salts.clear()
            salt = hmac.new(self._secret, caller.tenant.encode(), hashlib.sha256).hexdigest()[:32]
            self._salts[caller.tenant] = salt
        return salt
