"""The threads that compute the model inside the engine process, each kept on a core of its own; free of vLLM.

libgomp binds them by OMP_PLACES, those too that it ends and starts again. It also binds the thread that loads it, and
what that starts would inherit it: the engine's other threads, compilers. So this thread is free until all is loaded.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection

from forebay.engines.vllm_impl.thread_plan import PLACES

logger = logging.getLogger(__name__)


class MainThread:
    """The one that runs the model, with libgomp's threads beside it."""

    def __init__(self, everywhere: Collection[int], own: Collection[int]) -> None:
        """Frees it to run on the CPUs `everywhere`. `own`: its place later; empty where the threads have none."""
        self._own = own
        if own:
            for name in PLACES:
                os.environ.pop(name, None)  # processes that load libgomp, too, compile for this one: they run anywhere
            _run_on(everywhere)

    def bind(self) -> None:
        """Once, with the first request."""
        own, self._own = self._own, ()
        if own:
            _run_on(own)


def _run_on(cpus: Collection[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        logger.warning("The thread that runs the model cannot be kept on CPUs %s: %s.", list(cpus), exc)
