"""The threads that compute the model inside the engine process, each kept on a core of its own; free of vLLM.

OpenMP's own variables would bind all that the engine's main thread starts, its compilers too, and libraries that bring
a libgomp of their own say so on standard error.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Sequence

import torch

TASKS = "/proc/self/task"
ELEMENTS_A_THREAD = 1 << 17
"""Several times what torch gives a thread at least."""

logger = logging.getLogger(__name__)


class ModelThreads:
    """The thread that makes it, which must be the one that runs the model, and OpenMP's, which its first computation
    starts. Others that it starts run anywhere until `keep` is called: what loads and compiles comes before."""

    def __init__(self, places: Sequence[Collection[int]]) -> None:
        """`places`: CPUs for each of them; none leaves them where they run. Make it before this thread computes."""
        self._places = places
        self._workers: list[int] = []
        self._known: set[int] = set()
        """Threads that need not be looked at again."""
        if places:
            self._everywhere = os.sched_getaffinity(0)
            before = _tasks()
            torch.ones(len(places) * ELEMENTS_A_THREAD).add_(1)
            self._workers = sorted(_tasks() - before)

    def keep(self) -> None:
        """Before each step: binds them all the first time, then those that OpenMP has ended and started again, which
        are where the thread is that started them."""
        if not self._places or (self._known and not (gone := self._gone())):
            return
        try:
            if not self._known:
                self._bind_all()
            else:
                self._bind_again(gone)
        except OSError as exc:
            self._places = ()
            os.sched_setaffinity(0, self._everywhere)
            logger.warning("The model's threads are not all kept on cores of their own: %s.", exc)

    def _gone(self) -> list[int]:
        return [at for at, worker in enumerate(self._workers) if not os.path.exists(f"{TASKS}/{worker}")]

    def _bind_all(self) -> None:
        if len(self._workers) + 1 != len(self._places):
            raise OSError(f"{len(self._workers) + 1} threads for {len(self._places)} cores")
        self._known = _tasks()
        for thread_id, cpus in zip([*self._workers, threading.get_native_id()], _turned(self._places), strict=True):
            os.sched_setaffinity(thread_id, cpus)

    def _bind_again(self, gone: Sequence[int]) -> None:
        added = _tasks() - self._known
        inherited = sorted(task for task in added if os.sched_getaffinity(task) == set(self._places[0]))
        for at, worker in zip(gone, inherited, strict=False):  # the rest of them may be started later
            os.sched_setaffinity(worker, self._places[at + 1])
            self._workers[at] = worker
            self._known.add(worker)


def _turned(places: Sequence[Collection[int]]) -> list[Collection[int]]:
    """The main thread's place last: where a worker cannot be bound, it is not either."""
    return [*places[1:], places[0]]


def _tasks() -> set[int]:
    return set(map(int, os.listdir(TASKS)))
