"""Ending on purpose: work in flight is counted, new work is refused, what remains is told to stop."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

import structlog

FATAL_S = 5.0
"""What requests have to end by themselves once the engine is lost: it fails them, nothing else is to wait for."""

_log = structlog.get_logger(__name__)


class Waiting(Protocol):
    """Something that waits, and may be told not to."""

    def force(self) -> None: ...


class Drain:
    """The server's way out. Lives on one event loop; not thread-safe.

    Middleware refuses new work while `draining`, and wraps requests in `with drain.track():`, but for probes and
    scrapes. What waits for an answer is in `waiting` (see `forebay.patience`), so that `force` ends the wait at once.
    `fatal` is the sentence that says why the engine, or the ledger's writer, is lost for good; the process then
    ends non-zero.
    """

    def __init__(self) -> None:
        self.draining = False
        self.forced = False
        self.in_flight = 0
        self.fatal: str | None = None
        self._begun = asyncio.Event()
        self._forced = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.waiting: set[Waiting] = set()

    def track(self) -> Drain:
        """A context manager around one request."""
        return self

    def __enter__(self) -> Drain:
        self.in_flight += 1
        self._idle.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()

    def begin(self) -> None:
        """Refuse new work from now on. Idempotent."""
        self.draining = True
        self._begun.set()

    def force(self) -> None:
        """Tell everything in flight to end now. Idempotent."""
        self.begin()
        self.forced = True
        self._forced.set()
        for one in list(self.waiting):
            one.force()

    def fail(self, reason: str) -> None:
        """Something without which there is no service is lost for good: refuse new work, force what has not ended after
        `FATAL_S`, and end the process non-zero. The first reason stays."""
        if self.fatal is None:
            self.fatal = reason
            _log.error("service_lost", reason=reason, ends_within_s=FATAL_S)
            asyncio.get_running_loop().call_later(FATAL_S, self.force)
        self.begin()

    async def wait_begun(self) -> None:
        await self._begun.wait()

    async def wait_idle(self, timeout_s: float) -> bool:
        """True once nothing is in flight, False after `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def finish(self, timeout_s: float, grace_s: float) -> bool:
        """Begin, let work end by itself for `timeout_s` seconds or until `force`, then force it and wait `grace_s`.

        True if everything ended by itself.
        """
        self.begin()
        waits = [asyncio.ensure_future(event.wait()) for event in (self._idle, self._forced)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if self._idle.is_set() and not self.forced:
            return True
        self.force()
        await self.wait_idle(grace_s)
        return False
