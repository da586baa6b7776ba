"""The stall rule: an engine with work whose counters stand still is not progressing."""

from __future__ import annotations

import time

from forebay.engines.base import EngineLoad


class ProgressWatch:
    """Judges a series of loads; a stall begins after `stall_timeout_s` without movement and ends with the next one."""

    def __init__(self, stall_timeout_s: float) -> None:
        self._timeout_s = stall_timeout_s
        self.reset()

    def reset(self) -> None:
        """For a new engine, whose counters begin anew."""
        self._counters: tuple[int, int, int] | None = None
        self._moved_at = time.monotonic()
        self.stalled = False
        self.reason: str | None = None

    def observe(self, load: EngineLoad) -> None:
        now = time.monotonic()
        counters = (load.num_steps, load.num_generated_tokens, load.num_prompt_tokens)
        num_present = load.running + load.waiting
        if counters != self._counters or num_present == 0:
            self._counters, self._moved_at = counters, now
        self.stalled = now - self._moved_at >= self._timeout_s
        self.reason = f"The engine has made no progress for {self._timeout_s:g} s." if self.stalled else None
