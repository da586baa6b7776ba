"""Work that the server does for itself: in the ledger as its own tenant's, charged to nobody, counted to the token."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Protocol

from forebay.ledger.account import NOTHING, Account
from forebay.ledger.ledger import Ledger
from forebay.ledger.tally import Stream
from forebay.observe.record import RequestRecord
from forebay.types import Caller, Usage

OWN = Caller(tenant="(server)", key_id="(server)", priority="batch")
"""No tenant can have this name."""

SPAN_S = 30.0
"""Work that begins within so many seconds shares an account, unless nothing was running in between."""


class OwnStream(Stream, Protocol):
    @property
    def usage(self) -> Usage:
        """What the engine has done for it so far."""


class OwnAccount:
    """One account in the ledger, of any number of streams: reserved at nothing, settled at nothing, and the row
    `uncharged` has what the engine did."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.began = time.monotonic()
        self.num_running = 0
        self.any_cut_short = False
        self._streams: list[OwnStream] = []
        account.streams = self._streams

    def add(self, stream: OwnStream) -> None:
        self._streams.append(stream)

    def settle(self) -> None:
        """At what the streams say now; what an engine still does for one that was cut short is told apart (`Tally`)."""
        done = [stream.usage for stream in self._streams]
        total = Usage(
            sum(usage.prompt_tokens for usage in done),
            sum(usage.completion_tokens for usage in done),
            sum(usage.cached_tokens for usage in done),
        )
        self._account.settle("failed" if self.any_cut_short else "complete", NOTHING, total)


class OwnWork:
    """Lives on the event loop. What the engine is asked for begins here before it is asked, and ends here.

    Not an account a stream: a question to the served model is one token, and three rows for it would be many.
    """

    def __init__(self, ledger: Ledger, span_s: float = SPAN_S) -> None:
        self._ledger = ledger
        self._span_s = span_s
        self._current: OwnAccount | None = None
        self._leaving: list[OwnAccount] = []
        """Older ones, in which something runs still."""
        self._opening = asyncio.Lock()

    async def begin(self, model: str) -> OwnAccount:
        """Where the stream to come is counted; durable when it returns. Raises `StorageUnavailable`."""
        async with self._opening:
            current = self._current
            if current is None or time.monotonic() - current.began > self._span_s:
                self._retire()
                current = self._current = OwnAccount(await self._open(model))
            current.num_running += 1
            return current

    def end(self, account: OwnAccount, *, complete: bool) -> None:
        """`complete`: nothing of it was cut short."""
        account.num_running -= 1
        account.any_cut_short |= not complete
        if not account.num_running and account in self._leaving:
            self._leaving.remove(account)
            account.settle()

    def tick(self) -> None:
        """Called every second: what is over is settled."""
        if self._current is not None and not self._current.num_running:
            self._retire()

    def close(self) -> None:
        """After all that ran has ended."""
        self._retire()

    def _retire(self) -> None:
        current, self._current = self._current, None
        if current is None:
            return
        if current.num_running:
            self._leaving.append(current)
        else:
            current.settle()

    async def _open(self, model: str) -> Account:
        record = RequestRecord(f"own-{uuid.uuid4().hex}", "", route="(server)", model=model)
        return await self._ledger.open(
            OWN,
            record,
            at=time.time_ns() // 1_000_000,
            prompt_tokens=0,
            completion_tokens=0,
            cost=0,
            on_settled=lambda num_tokens, cost: None,
        )
