"""Virtual token counters: of the keys that wait, the one that was served least goes first.

VTC of Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, arXiv:2401.00588, algorithm 2.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

PROMPT_WEIGHT, COMPLETION_WEIGHT = 1, 2
"""w_p and w_q of the paper: what a token adds to the counter of its key."""

SWEEP_AT = 1024
"""Keys remembered before those that are no longer needed are looked for."""


class Flow(Generic[T]):
    """One key: what it was served, what it runs, what of it waits, in order of arrival."""

    __slots__ = ("counter", "in_heap", "num_running", "waiting")

    def __init__(self) -> None:
        self.counter = 0
        self.num_running = 0
        self.waiting: OrderedDict[T, None] = OrderedDict()
        self.in_heap = False

    @property
    def head(self) -> T:
        return next(iter(self.waiting))


class VirtualCounters(Generic[T]):
    """The flows of all keys, and of those that wait the one with the smallest counter.

    A counter only grows. A flow that begins to wait is lifted to the smallest counter of those that wait, or if none
    does to that of the last that did: time in which a key asked for nothing gives it no credit. A heap holds the flows
    with counters as they were, and the top is brought up to date when it is looked at: joining, leaving and charging
    are O(1) or O(log n), and finding the least is O(log n) for each counter in between that has grown since.
    """

    def __init__(self) -> None:
        self._flows: dict[Hashable, Flow[T]] = {}
        self._heap: list[tuple[int, int, Flow[T]]] = []
        self._numbers = itertools.count()
        self._last: Flow[T] | None = None
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        """Keys that are remembered."""
        return len(self._flows)

    def join(self, key: Hashable, item: T) -> Flow[T]:
        """`item` waits in the key's flow."""
        flow = self._flows.get(key) or self._begin(key)
        if not flow.waiting:
            flow.counter = max(flow.counter, self._floor())
            if not flow.in_heap:
                heapq.heappush(self._heap, (flow.counter, next(self._numbers), flow))
                flow.in_heap = True
        flow.waiting[item] = None
        return flow

    def pass_through(self, key: Hashable) -> Flow[T]:
        """While nobody waits: as if something had joined the key's flow and left it at once."""
        flow = self._flows.get(key) or self._begin(key)
        if self._last is not None and flow.counter < self._last.counter:
            flow.counter = self._last.counter
        self._last = flow
        return flow

    def leave(self, flow: Flow[T], item: T) -> None:
        """`item` waits no longer."""
        del flow.waiting[item]
        if not flow.waiting:
            self._last = flow

    def least(self, *, running_below: int | None = None) -> Flow[T] | None:
        """The flow to serve next; of those that run fewer sequences than `running_below` where it is given."""
        passed = []
        while (flow := self._top()) is not None and running_below is not None and flow.num_running >= running_below:
            passed.append(heapq.heappop(self._heap))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return flow

    def _begin(self, key: Hashable) -> Flow[T]:
        if len(self._flows) >= self._sweep_at:
            self._sweep()
        flow = self._flows[key] = Flow()
        return flow

    def _top(self) -> Flow[T] | None:
        heap = self._heap
        while heap:
            counter, number, flow = heap[0]
            if not flow.waiting:
                flow.in_heap = False
                heapq.heappop(heap)
            elif flow.counter > counter:
                heapq.heapreplace(heap, (flow.counter, number, flow))
            else:
                return flow
        return None

    def _floor(self) -> int:
        least = self._top() or self._last
        return 0 if least is None else least.counter

    def _sweep(self) -> None:
        """Forgets the keys that have nothing here and whose counters would be lifted if they came back."""
        floor = self._floor()
        self._flows = {
            key: flow for key, flow in self._flows.items() if flow.in_heap or flow.num_running or flow.counter > floor
        }
        self._sweep_at = max(SWEEP_AT, 2 * len(self._flows))
