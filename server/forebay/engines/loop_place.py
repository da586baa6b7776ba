"""The event loop's thread, kept off the CPUs where an engine prepares its steps."""

from __future__ import annotations

import os
from collections.abc import Collection

import structlog

log = structlog.get_logger(__name__)


class LoopPlace:
    """Tokens come to the loop when the engine's main thread begins to prepare the next step, and the model's other
    threads have nothing to do. Where cores share no cache the kernel wakes the loop on the main thread's core all the
    same, and the step is as much later.

    Belongs to the loop's thread. Threads that it starts meanwhile run where it does.
    """

    def __init__(self) -> None:
        self._before: set[int] = set()

    def keep_off(self, cpus: Collection[int]) -> None:
        """Without effect where no other CPU would be left."""
        if cpus and (left := (before := os.sched_getaffinity(0)).difference(cpus)):
            self._before = before
            _run_on(left)

    def leave(self) -> None:
        """It runs again where it ran before. Idempotent."""
        before, self._before = self._before, set()
        if before:
            _run_on(before)


def _run_on(cpus: Collection[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:  # what this process may use has changed
        log.warning("loop_not_placed", cpus=sorted(cpus), reason=str(exc))
