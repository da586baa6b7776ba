"""The bounded queue in front of the engine: who waits, and who is told to come back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from forebay.errors import Overloaded

RATE_WINDOW = 64
MIN_RETRY_S, MAX_RETRY_S = 1.0, 60.0


class Ticket:
    """A place for `num_sequences` sequences, from before their prompts are read to their last token."""

    __slots__ = ("_admission", "_num_sequences", "_open", "_served", "_waiting_tokens")

    def __init__(self, admission: Admission, num_sequences: int) -> None:
        self._admission = admission
        self._num_sequences = num_sequences
        self._waiting_tokens: list[int] = []
        self._served = False
        self._open = True

    def wait(self, num_prompt_tokens: Sequence[int]) -> None:
        """The prompts are known, and wait for the engine. Raises `Overloaded`."""
        self._admission.add_tokens(sum(num_prompt_tokens))
        self._waiting_tokens = list(num_prompt_tokens)

    def started(self, prompt: int) -> None:
        """The prompt of this number has been computed, so it no longer counts as waiting. Idempotent."""
        self._served = True
        self._admission.num_waiting_tokens -= self._waiting_tokens[prompt]
        self._waiting_tokens[prompt] = 0

    def close(self) -> None:
        """Gives the place back. Idempotent."""
        if self._open:
            self._open = False
            self._admission.num_waiting_tokens -= sum(self._waiting_tokens)
            self._admission.leave(self._num_sequences, served=self._served)


class Admission:
    """Counts sequences between the door and their last token.

    The engine steps `num_slots()` sequences together; what is beyond waits, at most `max_queued` sequences and
    `max_queued_tokens` prompt tokens. A refusal says when to come back, from the rate at which sequences finish. What
    is larger than the whole queue is let in when nobody waits. `unit` is what clients are told that a sequence is.
    """

    def __init__(
        self, *, num_slots: Callable[[], int], max_queued: int, max_queued_tokens: int, unit: str = "sequences"
    ) -> None:
        self._unit = unit
        self._num_slots = num_slots
        self._max_queued = max_queued
        self._max_queued_tokens = max_queued_tokens
        self._finished: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self.num_in_flight = 0
        self.num_waiting_tokens = 0

    @property
    def num_waiting(self) -> int:
        return max(0, self.num_in_flight - self._num_slots())

    def enter(self, num_sequences: int) -> Ticket:
        """Takes a place or raises `Overloaded`."""
        if not self.num_waiting:
            self._finished.clear()  # an engine that keeps up finishes as fast as it is asked, and no faster
        excess = self.num_in_flight + min(num_sequences, self._max_queued) - self._num_slots() - self._max_queued
        if excess > 0:
            raise Overloaded(
                f"The queue is full: {self.num_waiting} {self._unit} are waiting; this request has {num_sequences}, "
                f"and {self._max_queued} may wait.",
                retry_after_s=self._seconds_until(excess),
            )
        self.num_in_flight += num_sequences
        return Ticket(self, num_sequences)

    def add_tokens(self, num_tokens: int) -> None:
        """Counts a prompt as waiting or raises `Overloaded`."""
        if self.num_waiting_tokens and self.num_waiting_tokens + num_tokens > self._max_queued_tokens:
            raise Overloaded(
                f"The queue is full: {self.num_waiting_tokens} prompt tokens are waiting; this request has "
                f"{num_tokens}, and {self._max_queued_tokens} may wait.",
                retry_after_s=self._seconds_until(1),
            )
        self.num_waiting_tokens += num_tokens

    def leave(self, num_sequences: int, *, served: bool) -> None:
        """`served`: the engine worked for them, so they tell how fast it is."""
        self.num_in_flight -= num_sequences
        if served:
            self._finished.append((time.monotonic(), num_sequences))

    def _seconds_until(self, num_leaving: int) -> float:
        """Seconds until so many sequences will have left, at the rate of the last ones that did."""
        if len(self._finished) < 2:
            return MIN_RETRY_S
        (began, before), *_ = self._finished
        rate = (sum(count for _, count in self._finished) - before) / max(time.monotonic() - began, 1e-3)
        return min(MAX_RETRY_S, max(MIN_RETRY_S, math.ceil(num_leaving / rate)))
