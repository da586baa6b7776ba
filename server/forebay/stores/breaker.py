"""A circuit breaker: after failures in a row nothing waits for what is away until a probe finds it back."""

from __future__ import annotations

import time

import structlog

FAILURES = 5

log = structlog.get_logger(__name__)


class Breaker:
    """Closed while calls succeed. One log line each time that it opens or closes, none in between."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._num_in_a_row = 0
        self._opened_at: float | None = None
        self.num_failures = 0

    @property
    def is_open(self) -> bool:
        return self._opened_at is not None

    def failed(self, reason: str) -> None:
        self.num_failures += 1
        self._num_in_a_row += 1
        if self._opened_at is None and self._num_in_a_row >= FAILURES:
            self._opened_at = time.monotonic()
            log.error(f"{self._name}_unavailable", reason=reason)

    def succeeded(self) -> None:
        self._num_in_a_row = 0
        if self._opened_at is not None:
            away_s = time.monotonic() - self._opened_at
            self._opened_at = None
            log.info(f"{self._name}_recovered", away_s=round(away_s, 1))
