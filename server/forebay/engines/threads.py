"""Threads for blocking calls that the end of the process does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from forebay.errors import EngineUnavailable

T = TypeVar("T")
Job = Callable[[], None]


def call_for(future: asyncio.Future[T], call: Callable[[], T], settled: Callable[[], None] | None = None) -> None:
    """Makes the call in this thread and gives its outcome to the future, on the future's loop.

    `settled` is called there, too, also where the future has been cancelled meanwhile.
    """

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        if settled is not None:
            settled()
        if not future.cancelled():
            set_outcome(outcome)

    try:
        outcome: tuple[Callable[[Any], None], object] = future.set_result, call()
    except BaseException as exc:  # whatever it is, the waiting task raises it
        outcome = future.set_exception, exc
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        future.get_loop().call_soon_threadsafe(settle, *outcome)


class DaemonThreads:
    """At most `num_threads` calls at a time, the others in order; threads start on first use.

    Unlike those of an executor they do not keep the process from ending: a call that never returns costs one of them
    until then, no more. All callers belong to one event loop.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._num_busy = 0
        self._free = asyncio.Semaphore(num_threads)
        self._closed = False

    async def begin(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Waits for a free thread, which then makes the call. Raises EngineUnavailable after `close`.

        Cancelling the future gives the call up; its thread is busy until it returns.
        """
        await self._free.acquire()
        if self._closed:
            self._free.release()  # for the next one who waits
            raise EngineUnavailable("The engine is closed.")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._num_busy += 1
        if self._num_busy > len(self._threads):
            self._start_one()
        self._jobs.put(partial(call_for, future, call, self._settled))
        return future

    def _settled(self) -> None:
        self._num_busy -= 1
        self._free.release()

    def close(self) -> None:
        """The threads end after what they are doing; what waits for one is told so."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)

    def _start_one(self) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
