"""The fair queue: whom the engine serves next, and which of its slots stay free for those who come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from forebay.tenants.virtual_counters import COMPLETION_WEIGHT, PROMPT_WEIGHT, Flow, VirtualCounters
from forebay.types import Caller, Priority

BATCH_PRICE = 9
"""A batch token weighs as much as nine interactive ones where the classes are compared: of what is served while both
wait, batch gets a tenth."""

BATCH_PATIENCE = 10_000
"""How much more than its share the interactive class gets, in counted tokens, before batch goes first."""

BATCH_RANK = 1 << 20
"""Batch work's place in the engine's own queue: behind any number of sequences of an interactive key."""

SLOTS_FOR_A_KEPT_ONE, MOST_KEPT = 16, 8
"""Without a setting a sixteenth of the slots is kept free, at most eight."""

EVERYTHING = 1 << 62

RECHECK_S = 0.05
"""How often, while somebody waits, the engine is asked whether it runs less than the books say."""


class PriorityClass:
    """The keys of one class, and what the class as a whole was served."""

    __slots__ = ("counter", "flows", "num_waiting", "price", "rank")

    def __init__(self, price: int, rank: int) -> None:
        self.price = price
        self.rank = rank
        self.counter = 0
        self.num_waiting = 0
        self.flows: VirtualCounters[Turn] = VirtualCounters()


class Turn:
    """The `num_sequences` sequences of one prompt: they wait together, run, and end one by one.

    `num_slots` is what they hold. `priority` is for the engine's own queue, where lower goes first: how many sequences
    the key was running already.
    """

    __slots__ = ("_future", "_granted", "_joined", "_num_prompt_tokens", "_queue", "flow", "num_sequences", "num_slots",
                 "of", "priority")  # fmt: skip

    def __init__(self, queue: FairQueue, of: PriorityClass, num_sequences: int, num_prompt_tokens: int) -> None:
        self._queue = queue
        self._num_prompt_tokens = num_prompt_tokens
        self._joined = time.perf_counter()
        self._granted: float | None = None
        self._future: asyncio.Future[None] | None = None
        self.of = of
        self.flow: Flow[Turn]
        self.num_sequences = num_sequences
        self.num_slots = 0
        self.priority = 0

    @property
    def queue_s(self) -> float:
        """Seconds until they were granted, or until now."""
        return (self._granted or time.perf_counter()) - self._joined

    async def wait(self) -> None:
        """Returns when the engine may have them. Called once."""
        if self._granted is None:
            self._future = asyncio.get_running_loop().create_future()
            await self._future

    def grant(self, num_slots: int) -> None:
        """Called by the queue."""
        flow = self.flow
        self.num_slots = num_slots
        self.priority = self.of.rank + flow.num_running
        flow.num_running += num_slots
        self._granted = time.perf_counter()
        cost = PROMPT_WEIGHT * self._num_prompt_tokens
        flow.counter += cost
        self.of.counter += cost * self.of.price
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def generated(self, num_tokens: int) -> None:
        """The engine has generated so many tokens for them."""
        cost = COMPLETION_WEIGHT * num_tokens
        self.flow.counter += cost
        self.of.counter += cost * self.of.price

    def ended(self) -> None:
        """One of the sequences has its last token: the engine's slot is free."""
        self.num_sequences -= 1
        if self.num_sequences < self.num_slots:
            self._queue.release(self, 1)

    def leave(self) -> None:
        """They have ended, or do not wait any longer. Idempotent."""
        if self._granted is None:
            self._queue.cancel(self)
        elif self.num_slots:
            self._queue.release(self, self.num_slots)


class FairQueue:
    """Hands out the engine's slots.

    Within a class the key with the smallest virtual counter goes first; where its request does not fit, what comes free
    is kept for it. Interactive goes before batch until batch is behind its share. A key may take the last `num_kept`
    slots only while it runs fewer than so many sequences itself, one of the batch class only while batch is behind;
    others may pass a key that must not.

    The books count a sequence until its consumer has read its last token. `num_open` tells how many sequences the
    engine itself has: where it has fewer for longer than `RECHECK_S`, a client does not read, and the slot is given on.
    """

    def __init__(self, *, num_slots: Callable[[], int], num_kept: int | None, num_open: Callable[[], int]) -> None:
        """`num_kept` None: chosen from the number of slots."""
        self._num_slots = num_slots
        self._num_kept = num_kept
        self._num_open = num_open
        self._classes: dict[Priority, PriorityClass] = {
            "interactive": PriorityClass(price=1, rank=0),
            "batch": PriorityClass(price=BATCH_PRICE, rank=BATCH_RANK),
        }
        self._last = self._classes["interactive"]
        self._recheck: asyncio.TimerHandle | None = None
        self._last_open = 0
        self.num_waiting = 0
        """Sequences."""
        self.num_running = 0
        """Slots."""

    @property
    def num_kept(self) -> int:
        return self._num_kept_of(self._num_slots())

    def _num_kept_of(self, num_slots: int) -> int:
        kept = min(num_slots // SLOTS_FOR_A_KEPT_ONE, MOST_KEPT) if self._num_kept is None else self._num_kept
        return min(kept, num_slots - 1)

    @property
    def has_spare(self) -> bool:
        """Nobody waits, and a slot is free beyond those that are kept."""
        return not self.num_waiting and self.num_running < self._num_slots() - self.num_kept

    def join(self, caller: Caller, num_sequences: int, num_prompt_tokens: int) -> Turn:
        """A place at the end of the key's own queue; where nobody waits and slots are free that are not kept, they are
        granted at once. Whatever becomes of it, it must `leave`."""
        of = self._classes[caller.priority]
        if not of.num_waiting:
            of.counter = max(of.counter, self._floor())
        turn = Turn(self, of, num_sequences, num_prompt_tokens)
        key = (caller.tenant, caller.key_id)
        if not self.num_waiting:
            num_slots = self._num_slots()
            most = num_slots - self._num_kept_of(num_slots)
            num_asked = min(num_sequences, most)
            if self.num_running + num_asked <= most:
                turn.flow = of.flows.pass_through(key)
                self._last = of
                self._grant(turn, num_asked)
                return turn
        turn.flow = of.flows.join(key, turn)
        of.num_waiting += 1
        self.num_waiting += num_sequences
        if len(turn.flow.waiting) == 1:  # behind its own key's others it cannot be next
            self._dispatch(self._num_slots() - self.num_running)
        if self.num_waiting and self._recheck is None:
            self._last_open = self.num_running
            self._recheck_later()
        return turn

    def cancel(self, turn: Turn) -> None:
        """It waits no longer, and what waited for it to fit may go."""
        if turn in turn.flow.waiting:
            self._take(turn)
            self._dispatch(self._num_slots() - self.num_running)

    def release(self, turn: Turn, num_slots: int) -> None:
        turn.num_slots -= num_slots
        turn.flow.num_running -= num_slots
        self.num_running -= num_slots
        if self.num_waiting:
            self._dispatch(self._num_slots() - self.num_running)

    def _grant(self, turn: Turn, num_slots: int) -> None:
        turn.grant(num_slots)
        self.num_running += num_slots

    def _floor(self) -> int:
        if not self.num_waiting:
            return self._last.counter
        return min(of.counter for of in self._classes.values() if of.num_waiting)

    def _take(self, turn: Turn) -> None:
        """Out of the queue."""
        of = turn.of
        of.flows.leave(turn.flow, turn)
        of.num_waiting -= 1
        self.num_waiting -= turn.num_sequences
        if not of.num_waiting:
            self._last = of

    def _dispatch(self, num_free: int) -> None:
        """All that may go."""
        total = self._num_slots()
        num_kept = self._num_kept_of(total)
        most = total - num_kept
        while num_free > 0 and (turn := self._next(num_free, num_kept, most)) is not None:
            self._take(turn)
            num_slots = min(turn.num_sequences, most)
            self._grant(turn, num_slots)
            num_free -= num_slots

    def _next(self, num_free: int, num_kept: int, most: int) -> Turn | None:
        """`most`: slots of one request, which may have more sequences than there are. Looking past keys that run much
        costs O(log n) for each, and there are at most `num_slots / num_kept` of them."""
        num_common = num_free - num_kept
        for of, light_below in self._order(num_kept):
            flow = of.flows.least()
            if flow is None:
                continue
            light = flow.num_running < light_below
            if min(flow.head.num_sequences, most) <= (num_free if light else num_common):
                return flow.head
            num_common = 0  # what it waits for is not for those behind it
            if light_below and (flow := of.flows.least(running_below=light_below)) is not None:
                return flow.head if min(flow.head.num_sequences, most) <= num_free else None
        return None

    def _order(self, num_kept: int) -> tuple[tuple[PriorityClass, int], ...]:
        """The classes, and how many sequences a key of each may run and still take a kept slot."""
        interactive, batch = self._classes["interactive"], self._classes["batch"]
        if batch.counter + BATCH_PATIENCE < interactive.counter:
            return (batch, EVERYTHING), (interactive, num_kept)
        return (interactive, num_kept), (batch, 0)

    def _recheck_later(self) -> None:
        self._recheck = asyncio.get_running_loop().call_later(RECHECK_S, self._dispatch_by_engine)

    def _dispatch_by_engine(self) -> None:
        """By what the engine has, of two looks the higher: what was just handed to it, it may not have counted yet."""
        self._recheck = None
        num_open = self._num_open()
        busy, self._last_open = max(num_open, self._last_open), num_open
        self._dispatch(self._num_slots() - min(self.num_running, busy))
        if self.num_waiting:
            self._recheck_later()
