"""Whether a request's client has left, for whoever works on the answer in the meantime."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

STATE = "departure"
"""Of the request's state, where the connection puts it."""


class ClientGone(Exception):
    """The client closed or reset the connection; there is nobody to answer."""


class Departure:
    """The connection calls `tell`, once. Lives on one event loop."""

    __slots__ = ("_watch", "left")

    def __init__(self) -> None:
        self.left = False
        self._watch: Watch | None = None

    def tell(self) -> None:
        self.left = True
        if self._watch is not None:
            self._watch.interrupt()

    def watch(self, on_left: Callable[[], None]) -> Watch:
        """A context manager, one at a time: what is awaited in it is cancelled when the client leaves, and it raises
        `ClientGone`. `on_left` is called before."""
        return Watch(self, on_left)

    def set_watch(self, watch: Watch | None) -> None:
        self._watch = watch


class Watch:
    """Interrupts the task that it was entered in, the way `asyncio.timeout` does: no task and no timer of its own."""

    __slots__ = ("_cancelling", "_departure", "_interrupted", "_on_left", "_soon", "_task")

    def __init__(self, departure: Departure, on_left: Callable[[], None]) -> None:
        self._departure = departure
        self._on_left = on_left
        self._interrupted = False
        self._soon: asyncio.Handle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._departure.set_watch(self)
        if self._departure.left:
            # Cancelled from inside, a task that never waits here would meet the cancellation at its next wait.
            self._soon = asyncio.get_running_loop().call_soon(self.interrupt)

    def interrupt(self) -> None:
        self._interrupted = True
        self._on_left()
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._departure.set_watch(None)
        if self._soon is not None:
            self._soon.cancel()
        if self._interrupted and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientGone from error
