"""Budgets against a model of them, under any order of requests, settlements and clocks that are set."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay.errors import QuotaExceeded
from forebay.tenants.ask import Hold
from forebay.types import Budget, Caller, Policy
from support.guards import DAY_MS, Clock, ask, caller, let_rest, local_guard

PRICE = 7
KEYS = {
    "red": Policy(budgets=(Budget(300, "tokens", "day"), Budget(5_000, "money", "month"))),
    "blue": Policy(budgets=(Budget(400, "tokens", "week"), Budget(50, "tokens", "total", hard=False))),
}
TENANT = Policy(budgets=(Budget(900, "tokens", "total"), Budget(500, "tokens", "day"), Budget(4_000, "money", "day")))


def window_of(budget: Budget, day: date) -> Any:
    return {
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": (day.year, day.month),
        "total": None,
    }[budget.window]


class Entry:
    """A request as the model has it: who, on which day, and what it holds or came to."""

    def __init__(self, key: str, day: date, hold: Hold, tokens: int) -> None:
        self.key, self.day, self.hold = key, day, hold
        self.tokens, self.cost = tokens, tokens * PRICE
        self.settled = False


class BudgetMachine(RuleBasedStateMachine):
    """The model adds up a list; the guard must admit exactly what the sum leaves room for."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.guard = local_guard(self.clock, num_ready=0)
        self.entries: list[Entry] = []

    @property
    def day(self) -> date:
        return date(1970, 1, 1) + timedelta(days=self.clock.wall // DAY_MS)

    def budgets_of(self, key: str) -> Iterator[tuple[Budget, list[Entry]]]:
        for budget in KEYS[key].budgets:
            yield budget, [entry for entry in self.entries if entry.key == key]
        for budget in TENANT.budgets:
            yield budget, self.entries

    def room(self, key: str) -> int:
        """Tokens that every hard budget leaves today."""
        rooms = []
        for budget, entries in self.budgets_of(key):
            if budget.hard:
                there = [entry for entry in entries if window_of(budget, entry.day) == window_of(budget, self.day)]
                spent = sum(entry.tokens if budget.unit == "tokens" else entry.cost for entry in there)
                rooms.append((budget.amount - spent) // (1 if budget.unit == "tokens" else PRICE))
        return min(rooms)

    def caller(self, key: str) -> Caller:
        return caller(KEYS[key], TENANT, key_id=key)

    @rule(
        key=st.sampled_from(sorted(KEYS)),
        prompt=st.integers(0, 60),
        completion=st.integers(1, 200),
        can_clamp=st.booleans(),
        choices=st.integers(1, 3),
    )
    def request(self, key: str, prompt: int, completion: int, can_clamp: bool, choices: int) -> None:
        completion *= choices
        room = self.room(key) - prompt
        fits = completion if completion <= room else room // choices * choices if can_clamp else 0
        try:
            hold = asyncio.run(
                ask(
                    self.guard,
                    self.caller(key),
                    prompt,
                    completion,
                    can_clamp=can_clamp,
                    num_choices=choices,
                    cost=lambda num_tokens: (prompt + num_tokens) * PRICE,
                )
            )
        except QuotaExceeded:
            assert fits < choices, f"room for {fits} tokens"
        else:
            assert hold.max_completion_tokens == fits
            self.entries.append(Entry(key, self.day, hold, prompt + fits))

    @precondition(lambda self: any(not entry.settled for entry in self.entries))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from([entry for entry in self.entries if not entry.settled]))
        entry.tokens = data.draw(st.integers(0, entry.tokens))
        entry.cost = entry.tokens * PRICE
        entry.settled = True
        entry.hold.settle(entry.tokens, entry.cost)

    @rule(hours=st.integers(-40 * 24, 40 * 24))
    def set_clock(self, hours: int) -> None:
        self.clock.wall += hours * 3_600_000

    @rule()
    def rest(self) -> None:
        """Nobody asks for a while but others, and of those at rest only what they spent is kept."""
        self.clock.steady += 61_000
        let_rest(self.guard)
        if all(entry.settled for entry in self.entries):
            assert self.guard.parties.num_awake <= 5

    @rule()
    def restart(self) -> None:
        """What is open ends as it was held; the ledger's daily sums are all that the new process knows."""
        self.guard = local_guard(self.clock, num_ready=0)
        for entry in self.entries:
            entry.settled = True
            day = (entry.day - date(1970, 1, 1)).days
            self.guard.seed([(day, "one", entry.key, entry.tokens, entry.cost)])

    @invariant()
    def within_every_hard_budget(self) -> None:
        """I4, in every window there ever was."""
        for key in KEYS:
            for budget, entries in self.budgets_of(key):
                spent: dict[Any, int] = {}
                for entry in entries:
                    amount = entry.tokens if budget.unit == "tokens" else entry.cost
                    there = window_of(budget, entry.day)
                    spent[there] = spent.get(there, 0) + amount
                assert not budget.hard or max(spent.values(), default=0) <= budget.amount


BudgetMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestBudgets = BudgetMachine.TestCase
