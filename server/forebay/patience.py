"""How long a request is worked for: until its client leaves, its time is over or the server must end."""

from __future__ import annotations

import asyncio
import math
import time
from types import TracebackType
from typing import Any, Literal

from forebay.drain import Drain
from forebay.errors import RequestTimeout, ShuttingDown


class ClientGone(Exception):
    """The client closed or reset the connection; there is nobody to answer."""


class Patience:
    """A context manager around whatever a request waits for, entered again and again, by one task.

    When it ends, what is awaited inside is cancelled, the way `asyncio.timeout` does it, and the block raises
    `ClientGone`, `RequestTimeout` or `ShuttingDown`; so do all later blocks, at once. Outside nothing is interrupted:
    accounts are settled there. Lives on one event loop; `close` it at the request's end.
    """

    __slots__ = (
        "_cancelling",
        "_drain",
        "_ended",
        "_inside",
        "_interrupted",
        "_limit_s",
        "_task",
        "_timer",
        "left_at",
        "started",
    )

    def __init__(self, drain: Drain | None = None, limit_s: float = math.inf) -> None:
        """`limit_s`: seconds from now on."""
        self.started = time.perf_counter()
        self.left_at: float | None = None
        """When the client left, `time.perf_counter()`."""
        self._drain = drain
        self._limit_s = limit_s
        self._ended: Literal["left", "late", "forced"] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._inside = False
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0
        self._interrupted = False

    @property
    def over(self) -> bool:
        """For loops that may never wait."""
        return self._ended is not None

    def client_left(self) -> None:
        """Told by the connection."""
        if self.left_at is None:
            self.left_at = time.perf_counter()
            self._end("left")

    def force(self) -> None:
        """Told by the drain."""
        self._end("forced")

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __enter__(self) -> None:
        drain = self._drain
        if drain is not None and drain.forced:
            self._end("forced")
        if self._ended is not None:
            raise self._error()
        if drain is not None:
            drain.waiting.add(self)
        task = self._task
        if task is None:
            task = self._task = asyncio.current_task()
            assert task is not None
        self._inside, self._cancelling = True, task.cancelling()
        if self._timer is None and self._limit_s < math.inf:
            left_s = self.started + self._limit_s - time.perf_counter()
            self._timer = task.get_loop().call_later(left_s, self._end, "late")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside = False
        if self._drain is not None:
            self._drain.waiting.discard(self)
        if self._interrupted:
            self._interrupted = False
            assert self._task is not None
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise self._error() from error

    def _end(self, why: Literal["left", "late", "forced"]) -> None:
        if self._ended is None:
            self._ended = why
            if self._inside and self._task is not None:
                # Later: a task that is told by itself may end its block before it waits, and meet this after it.
                self._task.get_loop().call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._inside and self._task is not None:
            self._interrupted = True
            self._task.cancel()

    def _error(self) -> Exception:
        if self._ended == "left":
            return ClientGone()
        if self._ended == "late":
            return RequestTimeout(f"The request took longer than {self._limit_s:g} s.")
        return ShuttingDown("The server shut down before the answer was complete.", retry_after_s=1)
