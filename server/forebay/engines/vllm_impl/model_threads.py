"""The threads that compute the model inside the engine process, each kept on a CPU of its own; free of vLLM."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence

import torch

TASKS = "/proc/self/task"
ELEMENTS_A_THREAD = 1 << 17
"""Several times what torch gives a thread at least."""

logger = logging.getLogger(__name__)


class ModelThreads:
    """The thread that makes it, which must be the one that runs the model, and those that OpenMP adds to it."""

    def __init__(self, cpus: Sequence[int]) -> None:
        """`cpus`: one for each of them; none leaves them where they run. Make it before this thread computes anything:
        OpenMP's threads are those that its first computation starts."""
        self._cpus = cpus
        self._ids: list[int] = []
        if cpus:
            before = set(os.listdir(TASKS))
            torch.ones(len(cpus) * ELEMENTS_A_THREAD).add_(1)
            added = sorted(int(task) for task in set(os.listdir(TASKS)) - before)
            self._ids = [threading.get_native_id(), *added]

    def bind(self) -> None:
        """Once, when all is loaded: what this thread starts later is bound as it is."""
        cpus, self._cpus = self._cpus, ()
        if not cpus:
            return
        try:
            if len(self._ids) != len(cpus):
                raise OSError(f"{len(self._ids)} threads for {len(cpus)} CPUs")
            for thread_id, cpu in zip(self._ids, cpus, strict=True):
                os.sched_setaffinity(thread_id, {cpu})
        except OSError as exc:
            logger.warning("The model's threads are not bound to CPUs: %s.", exc)
