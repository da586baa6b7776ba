"""What a benchmark says while it runs, on standard error: how far it is, and what it has found."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from forebay.bench.outcome import Outcome

WIDTH = 30
EVERY_S = 0.2


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Counts outcomes; draws at most five times a second, and nothing where standard error is no terminal."""

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self._label, self._total = label, total
        self._stream = stream or sys.stderr
        self._shown = self._stream.isatty()
        self._began = self._drawn = time.monotonic()
        self._num = self._num_failed = 0

    def count(self, outcome: Outcome) -> None:
        self._num += 1
        self._num_failed += outcome.failure is not None
        if self._shown and time.monotonic() - self._drawn >= EVERY_S:
            self._draw()

    def close(self) -> None:
        """Draws the end and leaves the line."""
        if self._shown:
            self._draw()
            self._stream.write("\n")

    def _draw(self) -> None:
        self._drawn = now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        filled = WIDTH * self._num // max(self._total, 1)
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        line = f"{self._label} [{'#' * filled:<{WIDTH}}] {self._num}/{self._total}, {self._num / seconds:.1f}/s{failed}"
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()
