"""One request before limits and budgets, and what it holds of them once it is let in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric

from forebay.tenants.limits import Limits, is_limited
from forebay.tenants.spending import Cost, Spending, affordable
from forebay.tenants.windows import DAY_MS
from forebay.types import Budget, Policy


class Party:
    """A key or a tenant, as limits and budgets know it."""

    __slots__ = ("key_id", "limits", "name", "spending", "tenant")

    def __init__(self, tenant: str, key_id: str | None = None) -> None:
        """A tenant has no key id. `name` is what errors call it."""
        self.name = "tenant" if key_id is None else "key"
        self.tenant = tenant
        self.key_id = key_id
        self.limits = Limits()
        self.spending = Spending()


Parties = tuple[tuple[Party, Policy], tuple[Party, Policy]]
"""The key and its tenant."""


class Claim(NamedTuple):
    """What a request needs of one budget, in its unit: at least `floor`, and as much as it may come to: `need`."""

    party: Party
    budget: Budget
    need: int
    floor: int


class Ask:
    """A request with all that decides on it.

    `whose` tells one that comes back as told from others. `now` and `at` are the steady and the wall clock's time in
    milliseconds. `step`: completion tokens may be clamped to a multiple of this; None: they may not. `cost` is None
    where there is no price.
    """

    __slots__ = (
        "_most",
        "at",
        "can_wait",
        "claims",
        "completion_tokens",
        "cost",
        "now",
        "parties",
        "prompt_tokens",
        "step",
        "tokens",
        "whose",
    )

    def __init__(
        self,
        parties: Parties,
        whose: Hashable,
        *,
        now: int,
        at: int,
        prompt_tokens: int,
        completion_tokens: int,
        step: int | None,
        cost: Cost | None,
    ) -> None:
        self.parties = parties
        self.whose = whose
        self.now = now
        self.at = at
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.tokens = prompt_tokens + completion_tokens
        """The most that it may come to."""
        self.step = step
        self.cost = cost
        self.can_wait = True
        """Whether it may wait here for a place, if it came as told."""
        self._most = 0 if cost is None else cost(completion_tokens)
        floor_tokens = completion_tokens if step is None else step
        least = self._most if step is None or cost is None else cost(step)
        self.claims = [
            Claim(party, budget, self.tokens, prompt_tokens + floor_tokens)
            if budget.unit == "tokens"
            else Claim(party, budget, self._most, least)
            for party, policy in parties
            for budget in policy.budgets
            if budget.unit == "tokens" or cost is not None
        ]

    @property
    def is_limited(self) -> bool:
        """Whether anything but budgets could refuse it."""
        (_, key), (_, tenant) = self.parties
        return is_limited(key) or is_limited(tenant)

    @property
    def day(self) -> int:
        """UTC, from 1970-01-01 on."""
        return self.at // DAY_MS

    def hold(self, ending: Ending, grants: Sequence[int], held: Sequence[int], headers: Mapping[str, str]) -> Hold:
        """It is let in. `grants`: what each claim got, at least its floor. `held`: of each party's bucket of tokens."""
        completion_tokens, most = self.completion_tokens, self._most
        for claim, granted in zip(self.claims, grants, strict=True):
            if claim.budget.hard and granted < claim.need:
                completion_tokens = affordable(claim.budget, granted, self.prompt_tokens, completion_tokens, self.cost)
        if completion_tokens < self.completion_tokens:
            if self.step is not None:
                completion_tokens = completion_tokens // self.step * self.step
            most = 0 if self.cost is None else self.cost(completion_tokens)
        day, tokens = self.day, self.prompt_tokens + completion_tokens
        for party, _ in self.parties:
            party.spending.add(day, tokens, most)
        return Hold(self, ending, completion_tokens, most, held, headers)


class Hold:
    """What one admitted request may come to, until `settle`."""

    __slots__ = ("_ending", "_settled", "ask", "at", "cost", "headers", "held", "max_completion_tokens")

    def __init__(
        self,
        ask: Ask,
        ending: Ending,
        max_completion_tokens: int,
        cost: int,
        held: Sequence[int],
        headers: Mapping[str, str],
    ) -> None:
        self.ask = ask
        self.at = ask.at
        """Unix milliseconds of admission. Its day decides whose window pays, so the ledger's row must say the same."""
        self.max_completion_tokens = max_completion_tokens
        """Never more than was asked for; less where a hard budget affords less."""
        self.cost = cost
        """Micro-units held."""
        self.held = held
        self.headers = headers
        self._ending = ending
        self._settled = False

    def settle(self, num_tokens: int, cost: int) -> None:
        """What it came to: prompt and completion tokens, micro-units. Idempotent."""
        if self._settled:
            return
        self._settled = True
        ask = self.ask
        day, excess = ask.day, num_tokens - ask.prompt_tokens - self.max_completion_tokens
        for party, _ in ask.parties:
            party.spending.add(day, excess, cost - self.cost)
        self._ending.ended(self, num_tokens)


class Ending(Protocol):
    """Is told what a request came to; its parties know already what they have spent."""

    def ended(self, hold: Hold, num_tokens: int) -> None: ...


class Limiter(Ending, Protocol):
    """Where limits and budgets are counted: in this process, or shared with others."""

    def begin(self, parties: Callable[[], Iterable[Party]]) -> None:
        """On the running loop. `parties`: all that may have spent anything."""

    async def close(self) -> None: ...

    def families(self) -> list[Metric]: ...

    def peek(self, parties: Parties, whose: Hashable) -> None:
        """Raises `RateLimited` where that is certain before the text is read."""

    async def admit(self, ask: Ask) -> Hold | None:
        """None: it came as told, and may wait here for a place, the only thing that it lacks.

        Raises `RateLimited`, `QuotaExceeded`, `Unavailable`.
        """
