"""Whether a text may be read on the event loop, where it waits for no thread, or needs one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

SHORT_CHARS = 2_000
"""What the demo model's template and tokenizer read in 0.6 ms, a hundred of them in 0.08 ms. To wait for a thread takes
0.12 ms, and longer beside a busy event loop, which holds the interpreter's lock."""
NUM_TRIALS = 3
QUICK_S, SLOW_S = 0.002, 0.02

logger = structlog.get_logger(__name__)


class Quick:
    """Templates are programs. Short texts are read on the event loop once a few have been read in no time elsewhere,
    and never again if one then holds the loop up."""

    def __init__(self) -> None:
        self._num_quick = 0
        self._held_up = False

    def may_read(self, num_chars: int) -> bool:
        return num_chars <= SHORT_CHARS and self._num_quick >= NUM_TRIALS and not self._held_up

    @contextmanager
    def trial(self, num_chars: int) -> Iterator[None]:
        """Around the reading of a text, in whichever thread; its time of the CPU is taken. What raises proves nothing
        quick."""
        began, was_read = time.thread_time(), False
        try:
            yield
            was_read = True
        finally:
            if num_chars <= SHORT_CHARS:
                self._note(time.thread_time() - began, was_read)

    def _note(self, seconds: float, was_read: bool) -> None:
        if seconds < QUICK_S:
            self._num_quick += was_read
        elif seconds > SLOW_S and self._num_quick >= NUM_TRIALS and not self._held_up:
            self._held_up = True
            logger.warning("slow_template", seconds=round(seconds, 3), reason="Texts are read in threads from now on.")
