"""One admitted request in the ledger: reserved before work begins, covered before bytes leave, settled once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

from forebay.failpoints import failpoint
from forebay.ledger.prices import Price
from forebay.ledger.rows import EngineUse, Reservation
from forebay.ledger.tally import Stream, Tally
from forebay.ledger.writes import LedgerWrites, Posting
from forebay.stores.group_commit import GroupCommit
from forebay.types import Usage

ALLOWANCE = 16
"""Tokens that may be on their way to a client before a checkpoint of them is durable; none in strict mode."""

ASK_AFTER = 12
"""Tokens after which a checkpoint is asked for, so that it is durable before anybody has to wait for it."""

Outcome = Literal["complete", "client_gone", "failed"]


OnSettled = Callable[[int, int], None]
"""Told tokens, and micro-units of money, once."""

NOTHING = Usage(0, 0)


class KeptSettlement(NamedTuple):
    """One to be written later, with `Ledger.settle_with`."""

    posting: Posting
    free: Callable[[], None]
    """What the request held beyond it is free once it was handed over, and not before: no reservation that uses it is
    on disk earlier."""


class Account:
    """Opened by `Ledger.open`. Settling is idempotent, never waits and never fails: the writer keeps trying.

    One that is not settled within its lease is abandoned by `Ledger.tick`.
    """

    __slots__ = (
        "_allowance",
        "_asked",
        "_book",
        "_delivered",
        "_durable",
        "_held",
        "_keep_settlement",
        "_moved",
        "_on_settled",
        "_price",
        "_tally",
        "_threshold",
        "_writer",
        "_writes",
        "cache_kind",
        "opened",
        "settled",
        "streams",
    )

    def __init__(
        self,
        held: Reservation,
        price: Price | None,
        book: dict[str, Account],
        writer: GroupCommit,
        writes: LedgerWrites,
        on_settled: OnSettled,
        tally: Tally,
        *,
        strict: bool,
        covered: int = 0,
        keep_settlement: Callable[[KeptSettlement], None] | None = None,
    ) -> None:
        """`price`: None where engine time is the cost. `book`: all that are not settled, this one until then, too.

        `covered`: tokens of which a checkpoint is durable with the reservation. `keep_settlement` is given a
        complete answer's settlement, to write it later (`Ledger.settle_with`)."""
        self._held = held
        self._price = price
        self._book = book
        self._writer = writer
        self._writes = writes
        self._on_settled = on_settled
        self._tally = tally
        self._keep_settlement = keep_settlement
        self._allowance = 0 if strict else ALLOWANCE
        self._threshold = covered + (1 if strict else ASK_AFTER)
        self._delivered = 0
        self._durable = covered
        self._asked: int | None = None
        self._moved: asyncio.Future[BaseException | None] | None = None
        self.opened = time.monotonic()
        self.settled = False
        self.cache_kind = held.cache_kind
        """What it is settled as."""
        self.streams: Sequence[Stream] = ()
        """Where the engine's work for it is counted."""
        book[held.request_id] = self

    @property
    def request_id(self) -> str:
        return self._held.request_id

    def covers(self, num_tokens: int) -> bool:
        """Whether answers of so many completion tokens may leave; where False, `await cover(num_tokens)` first.

        Of an answer that goes on, a checkpoint is asked for before anybody has to wait for it.
        """
        self._delivered = num_tokens
        if num_tokens < self._threshold:
            return True
        if self._asked is None:
            self._checkpoint(num_tokens)
        return self._is_covered(num_tokens)

    async def cover(self, num_tokens: int) -> None:
        """Returns when so many tokens may leave. Raises `StorageUnavailable`."""
        self._delivered = num_tokens
        while not self._is_covered(num_tokens):
            if self._asked is None:
                self._checkpoint(num_tokens)
            if self._moved is None:
                self._moved = asyncio.get_running_loop().create_future()
            if (error := await asyncio.shield(self._moved)) is not None:
                raise error

    def _is_covered(self, num_tokens: int) -> bool:
        return num_tokens <= self._durable + self._allowance

    def _checkpoint(self, num_tokens: int) -> None:
        self._writer.put(self._writes.checkpoint, (self._held.request_id, num_tokens), self._checkpointed)
        self._asked = num_tokens

    def _checkpointed(self, outcome: object) -> None:
        asked, self._asked = self._asked, None
        error = outcome if isinstance(outcome, BaseException) else None
        if error is None:
            assert asked is not None
            self._durable = asked
            self._threshold = asked + (ASK_AFTER if self._allowance else 1)
            failpoint("checkpointed")
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.set_result(error)

    def settle(
        self,
        outcome: Outcome,
        billed: Usage,
        generated: Usage,
        *,
        finish_reason: str | None = None,
        use: EngineUse | None = None,
    ) -> None:
        """`billed` is what the client pays for, `generated` what the engine has done for it: of an answer from the
        cache nothing, or what it did in vain before."""
        if self.settled:
            return
        self.settled = True
        use = use or EngineUse()
        engine_us = use.prefill_us + use.decode_us
        now = time.time_ns() // 1_000_000
        kind = self.cache_kind
        price, num_tokens, cost = self._price, billed.total_tokens, 0
        if num_tokens:
            cost = engine_us if price is None else price.charge(billed, is_hit=kind is not None)
        row = self._held.settled(now, outcome, finish_reason, billed, cost, kind, use)
        charged = billed if kind is None else NOTHING
        free = None
        if generated is not charged and generated != charged:
            free = row._replace(
                kind="uncharged",
                prompt_tokens=generated.prompt_tokens - charged.prompt_tokens,
                cached_tokens=generated.cached_tokens - charged.cached_tokens,
                completion_tokens=generated.completion_tokens - charged.completion_tokens,
                reasoning_tokens=generated.reasoning_tokens - charged.reasoning_tokens,
                cost=0,
                cache_kind=None,
            )
        tell = partial(self._on_settled, num_tokens, 0 if price is None else cost)
        failpoint("settling")
        if outcome == "complete" and self._keep_settlement is not None:
            self._keep_settlement(KeptSettlement(Posting(row, free), tell))
        else:
            self._writer.put(self._writes.post, Posting(row, free), kept=True)
            tell()
        self._book.pop(self._held.request_id, None)
        self._tally.settled(generated, self.streams, complete=outcome == "complete" and kind is None)

    def void(self) -> None:
        """The reservation was never written, so there is nothing to settle."""
        self.settled = True
        self._book.pop(self._held.request_id, None)
        self._on_settled(0, 0)

    def abandon(self) -> None:
        """Settles what nobody else will: as failed, at what was covered."""
        usage = Usage(self._held.prompt_tokens if self._delivered else 0, self._delivered)
        self.settle("failed", usage, usage if self.cache_kind is None else NOTHING)
