"""A request's time limit, around everything that it waits for."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from forebay.drain import Drain
from forebay.errors import ApiError, RequestTimeout, ShuttingDown


class TimeLimit:
    """An asynchronous context manager, entered once. Raises `RequestTimeout` at the deadline, `ShuttingDown` when the
    server may wait no longer."""

    __slots__ = ("_deadline", "_drain", "_limit_s")

    def __init__(self, drain: Drain, started: float, limit_s: float) -> None:
        """`started` in `time.perf_counter()` seconds; all blocks of a request share the one limit."""
        left_s = started + limit_s - time.perf_counter()
        self._deadline = drain.deadline(asyncio.get_running_loop().time() + left_s)
        self._drain = drain
        self._limit_s = limit_s

    async def __aenter__(self) -> None:
        try:
            await self._deadline.__aenter__()
        except TimeoutError:
            raise self._error() from None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._deadline.__aexit__(kind, error, trace)
        except TimeoutError:
            raise self._error() from None
        if isinstance(error, TimeoutError):
            raise self._error() from None

    def _error(self) -> ApiError:
        if self._drain.forced:
            return ShuttingDown("The server shut down before the answer was complete.", retry_after_s=1)
        return RequestTimeout(f"The request took longer than {self._limit_s:g} s.")
