"""The bounded queue in front of the engine: who may wait, and who is told to come back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from forebay.errors import Overloaded, RateLimited
from forebay.types import Caller

RATE_WINDOW = 64
MIN_RETRY_S, MAX_RETRY_S = 1.0, 60.0

FREE_FACTOR = 8
"""A key may hold eight times what is free of the queue: alone it gets eight ninths, two keys get eight seventeenths
each, and something is always left for the next (dynamic thresholds: Choudhury and Hahne, IEEE/ACM Transactions on
Networking 6(2), 1998)."""

Owner = tuple[str, str | None]
"""A tenant and a key of its; None: the tenant itself."""

EVERYONE: Owner = ("", None)


class Holding:
    """Somebody's sequences between the door and their last token, and prompt tokens that wait.

    `num_started`: of the sequences, those whose prompt has been computed.
    """

    __slots__ = ("num_in_flight", "num_started", "num_waiting_tokens", "owner")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.num_in_flight = 0
        self.num_started = 0
        self.num_waiting_tokens = 0


class Ticket:
    """A place for `num_sequences` sequences, from before their prompts are read to their last token."""

    __slots__ = ("_admission", "_caller", "_holdings", "_num_sequences", "_num_started", "_open", "_waiting_tokens")

    def __init__(
        self, admission: Admission, caller: Caller | None, holdings: Sequence[Holding], num_sequences: int
    ) -> None:
        """`holdings`: what it counts in, everybody's first."""
        self._admission = admission
        self._caller = caller
        self._holdings = holdings
        self._num_sequences = num_sequences
        self._num_started = 0
        self._waiting_tokens: list[int] = []
        self._open = True
        for holding in holdings:
            holding.num_in_flight += num_sequences

    def wait(self, num_prompt_tokens: Sequence[int]) -> None:
        """The prompts are known, and wait for the engine. Raises `Overloaded` or `RateLimited`."""
        num_tokens = sum(num_prompt_tokens)
        if self._holdings[0].num_waiting_tokens:
            self._admission.check_tokens(self._caller, num_tokens)
        self._waiting_tokens = [*num_prompt_tokens]
        for holding in self._holdings:
            holding.num_waiting_tokens += num_tokens

    def started(self, prompt: int) -> None:
        """The prompt of this number has been computed, so it no longer waits. Called once for each."""
        waiting_tokens = self._waiting_tokens
        num_tokens, num_sequences = waiting_tokens[prompt], self._num_sequences // len(waiting_tokens)
        waiting_tokens[prompt] = 0
        self._num_started += num_sequences
        for holding in self._holdings:
            holding.num_started += num_sequences
            holding.num_waiting_tokens -= num_tokens

    def close(self) -> None:
        """Gives the place back. Idempotent."""
        if self._open:
            self._open = False
            num_sequences, num_started, num_tokens = self._num_sequences, self._num_started, sum(self._waiting_tokens)
            for holding in self._holdings:
                holding.num_in_flight -= num_sequences
                holding.num_started -= num_started
                holding.num_waiting_tokens -= num_tokens
            self._admission.left(self._holdings, num_sequences, served=num_started > 0)


class Admission:
    """Counts sequences between the door and their last token.

    The engine steps `num_slots()` sequences together; what is beyond waits, at most `max_queued` sequences and
    `max_queued_tokens` prompt tokens, both at least 1, of which a key, and a tenant, may hold the share that its policy
    names. What is larger than the whole queue, or share, is let in when nothing waits there: so where nothing waits at
    all, nothing is refused. A refusal says when to come back, from the rate at which sequences finish. `unit` is what
    clients are told that a sequence is.
    """

    def __init__(
        self, *, num_slots: Callable[[], int], max_queued: int, max_queued_tokens: int, unit: str = "sequences"
    ) -> None:
        self._unit = unit
        self._num_slots = num_slots
        self._max_queued = max_queued
        self._max_queued_tokens = max_queued_tokens
        self._finished: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW)
        self._num_finished = 0
        self._everyone = Holding(EVERYONE)
        self._holdings: dict[Owner, Holding] = {}
        """Of keys and tenants that have something here."""

    def enter(self, num_sequences: int, caller: Caller | None = None) -> Ticket:
        """Takes a place. Raises `Overloaded` where the queue is full, `RateLimited` where the caller's share is."""
        everyone, num_slots = self._everyone, self._num_slots()
        if everyone.num_in_flight > num_slots:
            self._check_sequences(caller, num_sequences, num_slots)
        else:
            self._finished.clear()  # an engine that keeps up finishes as fast as it is asked, and no faster
        if caller is None:
            return Ticket(self, None, (everyone,), num_sequences)
        key, tenant = self._held_by(caller)
        self._holdings[key.owner], self._holdings[tenant.owner] = key, tenant
        return Ticket(self, caller, (everyone, key, tenant), num_sequences)

    def left(self, holdings: Sequence[Holding], num_sequences: int, *, served: bool) -> None:
        """`holdings`: everybody's first. `served`: the engine worked for them, so they tell how fast it is."""
        if served:
            self._num_finished += num_sequences
            self._finished.append((time.monotonic(), self._num_finished))
        for holding in holdings[1:]:
            if not holding.num_in_flight:
                del self._holdings[holding.owner]

    def _held_by(self, caller: Caller) -> tuple[Holding, Holding]:
        """What the key and its tenant have here."""
        of_key, of_tenant = (caller.tenant, caller.key_id), (caller.tenant, None)
        return self._holdings.get(of_key) or Holding(of_key), self._holdings.get(of_tenant) or Holding(of_tenant)

    def _check_sequences(self, caller: Caller | None, num_sequences: int, num_slots: int) -> None:
        """Raises `Overloaded` or `RateLimited` where sequences may not wait."""
        everyone, capacity = self._everyone, self._max_queued
        used = everyone.num_in_flight - num_slots
        if excess := _excess(used, num_sequences, capacity):
            raise Overloaded(
                f"The queue is full: {used} {self._unit} are waiting; this request has {num_sequences}, and {capacity} "
                "may wait.",
                retry_after_s=self._seconds_until(excess),
            )
        if caller is not None:
            num_free = max(0, num_slots - everyone.num_started)

            def held(holding: Holding) -> int:
                return holding.num_in_flight - holding.num_started - num_free

            self._check_shares(caller, held, num_sequences, used=used, capacity=capacity, unit=self._unit)

    def check_tokens(self, caller: Caller | None, num_tokens: int) -> None:
        """Raises `Overloaded` or `RateLimited` where a prompt may not wait."""
        used, capacity, unit = self._everyone.num_waiting_tokens, self._max_queued_tokens, "prompt tokens"
        if _excess(used, num_tokens, capacity):
            raise Overloaded(
                f"The queue is full: {used} {unit} are waiting; this request has {num_tokens}, and "
                f"{capacity} may wait.",
                retry_after_s=self._seconds_until(1),
            )
        if caller is not None:
            self._check_shares(
                caller, lambda holding: holding.num_waiting_tokens, num_tokens, used=used, capacity=capacity, unit=unit
            )

    def _check_shares(
        self,
        caller: Caller,
        held: Callable[[Holding], int],
        amount: int,
        *,
        used: int,
        capacity: int,
        unit: str,
    ) -> None:
        key, tenant = self._held_by(caller)
        for name, holding, policy in (("key", key, caller.key_policy), ("tenant", tenant, caller.tenant_policy)):
            if policy.queue_share is None:
                continue
            most = max(1, int(policy.queue_share * capacity))
            if excess := _excess(held(holding), amount, most):
                raise RateLimited(
                    f"This {name}'s share of the queue is full: {max(0, held(holding))} of its {unit} are waiting; "
                    f"this request has {amount}, and {most} may wait.",
                    retry_after_s=self._seconds_until(excess if unit == self._unit else 1, holding),
                )
        if held(key) >= FREE_FACTOR * (capacity - used):
            raise Overloaded(
                f"The queue is almost full: {used} {unit} are waiting, {held(key)} of them this key's, and what is "
                "left is for others.",
                retry_after_s=self._seconds_until(1, key),
            )

    def _seconds_until(self, num_leaving: int, holding: Holding | None = None) -> float:
        """Seconds until so many sequences will have left, at the rate of the last ones that did, of which the holder's
        are as many as it has running."""
        if len(self._finished) < 2:
            return MIN_RETRY_S
        began, before = self._finished[0]
        rate = (self._num_finished - before) / max(time.monotonic() - began, 1e-3)
        if holding is not None:
            rate *= max(1, holding.num_started) / max(1, self._everyone.num_started)
        return min(MAX_RETRY_S, max(MIN_RETRY_S, math.ceil(num_leaving / rate)))


def _excess(held: int, amount: int, most: int) -> int:
    """How much has to leave before `amount` may come; what is larger than all there may be counts as all of it."""
    return max(0, held + min(amount, most) - most)
