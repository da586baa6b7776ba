"""What keys and tenants have spent and hold, by UTC day, and what their budgets leave."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from forebay.tenants.windows import KINDS, WindowKind, index_of
from forebay.types import Budget

Cost = Callable[[int], int]
"""Completion tokens -> micro-units of the whole request; never falls."""


class Sum:
    """Tokens, and micro-units of money."""

    __slots__ = ("cost", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.cost = 0

    def of(self, unit: str) -> int:
        return self.tokens if unit == "tokens" else self.cost


class Spending:
    """Of one key or tenant: what is settled and what is held, together. No window's sum is ever reset.

    A request counts in the windows of the day on which it was let in, so a clock that is set back finds the windows
    of that time as they were left.
    """

    __slots__ = ("_days", "_touched", "_windows")

    def __init__(self, rows: Sequence[int] = ()) -> None:
        """`rows`: day, tokens, cost, and so on; a day may be there more than once."""
        self._days: dict[int, Sum] = {}
        self._windows: dict[tuple[WindowKind, int], Sum] = {}
        self._touched: dict[int, list[Sum]] = {}
        """What a request of a day is added to, once it was looked up."""
        for day, tokens, cost in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            there = self._day(day)
            there.tokens += tokens
            there.cost += cost

    def rows(self) -> array[int]:
        """All there is to be kept of it."""
        rows: list[int] = []
        for day, there in self._days.items():
            if there.tokens or there.cost:
                rows += (day, there.tokens, there.cost)
        return array("q", rows)

    def add(self, day: int, tokens: int, cost: int) -> None:
        """Negative to take back."""
        for there in self._touched.get(day) or self._touch(day):
            there.tokens += tokens
            there.cost += cost

    def _touch(self, day: int) -> list[Sum]:
        windows = (self._windows.get((kind, index_of(kind, day))) for kind in KINDS)
        touched = [self._day(day), *(window for window in windows if window is not None)]
        self._touched = {day: touched}  # others are looked up again: days seldom alternate
        return touched

    def sum(self, kind: WindowKind, day: int) -> Sum:
        """Of the window that the day is in; it stays up to date."""
        if kind == "day":
            return self._day(day)
        key = (kind, index_of(kind, day))
        window = self._windows.get(key)
        if window is None:
            window = Sum()
            for other, there in self._days.items():
                if index_of(kind, other) == key[1]:
                    window.tokens += there.tokens
                    window.cost += there.cost
            self._windows[key] = window
            self._touched = {}
        return window

    def _day(self, day: int) -> Sum:
        there = self._days.get(day)
        if there is None:
            there = self._days[day] = Sum()
        return there


def affordable(budget: Budget, left: int, prompt_tokens: int, completion_tokens: int, cost: Cost | None) -> int:
    """As many of the completion tokens as `left` pays for; below zero where it does not even pay for the prompt."""
    if budget.unit == "tokens":
        return min(completion_tokens, left - prompt_tokens)
    assert cost is not None
    if cost(completion_tokens) <= left:
        return completion_tokens
    low, high = -1, completion_tokens  # low can be paid for, or is none at all; high cannot
    while high - low > 1:
        middle = (low + high) // 2
        if cost(middle) <= left:
            low = middle
        else:
            high = middle
    return low
