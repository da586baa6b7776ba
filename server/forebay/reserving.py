"""What a request may come to is held before work begins: of limits and budgets, and in the ledger."""

from __future__ import annotations

import time
from functools import partial

from forebay.ledger.account import Account
from forebay.ledger.ledger import Ledger
from forebay.ledger.rows import CacheKind
from forebay.observe.record import RequestRecord
from forebay.tenants.ask import Hold
from forebay.tenants.guard import Guard
from forebay.types import Caller, Usage
from forebay.work import Work


class Reserving:
    """All of it raises `RateLimited`, `QuotaExceeded`, `StorageUnavailable`."""

    def __init__(self, guard: Guard, ledger: Ledger) -> None:
        self._guard = guard
        self._ledger = ledger
        self.peek = guard.peek
        """Before the text is read: refuses what cannot be admitted whatever the text."""

    async def reserve(
        self, caller: Caller, record: RequestRecord, work: Work, *, shared: bool = False, joins: bool = False
    ) -> tuple[Work, Account]:
        """Holds the most that the work may come to; it is clamped to what can be held.

        `shared`: others may read it, or it `joins` what is another one's already; then it may cost in the end what
        generating costs, or what an answer from the cache does.
        """
        prompt_tokens, max_completion_tokens = work.prompt_tokens, work.max_completion_tokens
        price = self._ledger.price_of(record.model or "")
        hold = await self._guard.admit(
            caller,
            prompt_tokens=prompt_tokens,
            max_completion_tokens=max_completion_tokens,
            can_clamp=work.can_clamp,
            num_choices=work.num_choices,
            cost=None if price is None else partial(price.dearest if shared else price.most, prompt_tokens),
            fingerprint=record.fingerprint,
        )
        account = await self._open(caller, record, hold, prompt_tokens, "joined" if joins else None)
        if hold.max_completion_tokens < max_completion_tokens:
            work = work.clamped(hold.max_completion_tokens)
        return work, account

    async def reserve_hit(self, caller: Caller, record: RequestRecord, usage: Usage, kind: CacheKind) -> Account:
        """Holds what an answer from the cache comes to."""
        price = self._ledger.price_of(record.model or "")
        prompt_tokens, completion_tokens = usage.prompt_tokens, usage.completion_tokens
        hold = await self._guard.admit(
            caller,
            prompt_tokens=prompt_tokens,
            max_completion_tokens=completion_tokens,
            can_clamp=False,
            cost=None if price is None else partial(price.cost_of_hit, prompt_tokens),
            fingerprint=record.fingerprint,
        )
        return await self._open(caller, record, hold, prompt_tokens, kind, covered=completion_tokens)

    async def open_shadow(self, caller: Caller, record: RequestRecord, prompt_tokens: int) -> Account:
        """For work of our own, which nobody pays for and no limit counts."""
        return await self._ledger.open(
            caller,
            record,
            at=time.time_ns() // 1_000_000,
            prompt_tokens=prompt_tokens,
            completion_tokens=0,
            cost=0,
            on_settled=lambda tokens, cost: None,
            cache_kind="shadow",
        )

    async def _open(
        self,
        caller: Caller,
        record: RequestRecord,
        hold: Hold,
        prompt_tokens: int,
        cache_kind: CacheKind | None = None,
        covered: int = 0,
    ) -> Account:
        record.answer_headers += hold.raw_headers
        try:
            return await self._ledger.open(
                caller,
                record,
                at=hold.at,
                prompt_tokens=prompt_tokens,
                completion_tokens=hold.max_completion_tokens,
                cost=hold.cost,
                on_settled=hold.settle,
                cache_kind=cache_kind,
                covered=covered,
            )
        except BaseException:
            hold.settle(0, 0)
            raise
