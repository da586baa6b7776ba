"""Running a load so that its own cost is small, and knowing how much of a core it took."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")

COLLECT_EVERY = 50_000
BUSY = 0.85
"""Share of its core from which the client may be what limits the figures."""


def run_quick(work: Coroutine[Any, Any, T]) -> T:
    """On uvloop, with the objects that live anyway kept out of garbage collection and as many open files as may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says no limit and takes none
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is a file
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, *before[1:])
    try:
        return uvloop.run(work)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class CpuShare:
    """Of one core, used by this process since it was made."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> float:
        return (time.process_time() - self._cpu) / max(time.perf_counter() - self._began, 1e-9)
