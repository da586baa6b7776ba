"""One request before limits and budgets, and what it holds of them once it is let in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric

from forebay.tenants.limit_headers import RawHeaders, as_text
from forebay.tenants.parties import Party, Standing
from forebay.tenants.spending import Cost, affordable
from forebay.tenants.windows import DAY_MS
from forebay.types import Budget


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

    __slots__ = ("_claims", "_most", "at", "can_wait", "completion_tokens", "cost", "day", "now", "prompt_tokens",
                 "standing", "step", "tokens", "whose")  # fmt: skip

    def __init__(
        self,
        standing: Standing,
        whose: Hashable,
        *,
        now: int,
        at: int,
        prompt_tokens: int,
        completion_tokens: int,
        step: int | None,
        cost: Cost | None,
    ) -> None:
        self.standing = standing
        self.whose = whose
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.tokens = prompt_tokens + completion_tokens
        """The most that it may come to."""
        self.step = step
        self.cost = cost
        self.can_wait = True
        """Whether it may wait here for a place, if it came as told."""
        self._most = 0 if cost is None else cost(completion_tokens)
        self._claims: list[Claim] | None = None
        self.is_asked(now, at)

    def is_asked(self, now: int, at: int) -> None:
        """Now, or once more."""
        self.now = now
        self.at = at
        self.day = at // DAY_MS
        """UTC, from 1970-01-01 on."""
        key, tenant = self.standing.parties
        key.limits.used_at = tenant.limits.used_at = now

    @property
    def is_affordable(self) -> bool:
        """Whether every budget leaves the most that it may come to."""
        tokens, most = self.tokens, self._most
        for _, budget, spent in self.standing.budgets(self.day):
            if budget.unit == "tokens":
                if spent.tokens + tokens > budget.amount:
                    return False
            elif spent.cost + most > budget.amount:
                return False
        return True

    @property
    def claims(self) -> list[Claim]:
        """On every budget; on those in money only where there is a price."""
        if self._claims is None:
            step, cost = self.step, self.cost
            floor = self.prompt_tokens + (self.completion_tokens if step is None else step)
            least = self._most if step is None or cost is None else cost(step)
            self._claims = [
                Claim(party, budget, self.tokens, floor)
                if budget.unit == "tokens"
                else Claim(party, budget, self._most, least)
                for party, policy in self.standing.with_policies
                for budget in policy.budgets
                if budget.unit == "tokens" or cost is not None
            ]
        return self._claims

    def hold(self, ending: Ending, grants: Sequence[int] | None, held: Sequence[int], headers: RawHeaders) -> Hold:
        """It is let in. `grants`: what each claim got, at least its floor; None: all that it needs. `held`: of the
        bucket of tokens of each party that is limited."""
        completion_tokens, most = self.completion_tokens, self._most
        if grants is not None:
            for claim, granted in zip(self.claims, grants, strict=True):
                if claim.budget.hard and granted < claim.need:
                    completion_tokens = affordable(
                        claim.budget, granted, self.prompt_tokens, completion_tokens, self.cost
                    )
            if completion_tokens < self.completion_tokens:
                if self.step is not None:
                    completion_tokens = completion_tokens // self.step * self.step
                most = 0 if self.cost is None else self.cost(completion_tokens)
        tokens = self.prompt_tokens + completion_tokens
        for party in self.standing.parties:
            party.spending.add(self.day, tokens, most)
        return Hold(self, ending, completion_tokens, most, held, headers)


class Hold:
    """What one admitted request may come to, until `settle`."""

    __slots__ = ("_ending", "_settled", "ask", "at", "cost", "held", "max_completion_tokens", "raw_headers")

    def __init__(
        self,
        ask: Ask,
        ending: Ending,
        max_completion_tokens: int,
        cost: int,
        held: Sequence[int],
        raw_headers: RawHeaders,
    ) -> None:
        self.ask = ask
        self.at = ask.at
        """Unix milliseconds of admission. Its day decides whose window pays, so the ledger's row must say the same."""
        self.max_completion_tokens = max_completion_tokens
        """Never more than was asked for; less where a hard budget affords less."""
        self.cost = cost
        """Micro-units held."""
        self.held = held
        self.raw_headers = raw_headers
        self._ending = ending
        self._settled = False

    @property
    def headers(self) -> dict[str, str]:
        return as_text(self.raw_headers)

    def settle(self, num_tokens: int, cost: int) -> None:
        """What it came to: prompt and completion tokens, micro-units. Idempotent."""
        if self._settled:
            return
        self._settled = True
        ask = self.ask
        excess = num_tokens - ask.prompt_tokens - self.max_completion_tokens
        for party in ask.standing.parties:
            party.spending.add(ask.day, excess, cost - self.cost)
        self._ending.ended(self, num_tokens)


class Ending(Protocol):
    """Is told what a request came to; its parties know already what they have spent."""

    def ended(self, hold: Hold, num_tokens: int) -> None: ...


class Limiter(Ending, Protocol):
    """Where limits and budgets are counted: in this process, or shared with others."""

    keeps_parties: bool
    """Whether it refers to parties when nothing of theirs runs."""

    def begin(self, parties: Callable[[], Iterable[Party]]) -> None:
        """On the running loop. `parties`: all that may have spent anything."""

    async def close(self) -> None: ...

    def families(self) -> list[Metric]: ...

    def peek(self, standing: Standing, whose: Hashable) -> None:
        """Raises `RateLimited` where that is certain before the text is read."""

    async def admit(self, ask: Ask) -> Hold | None:
        """None: it came as told, and may wait here for a place, the only thing that it lacks.

        Raises `RateLimited`, `QuotaExceeded`, `Unavailable`.
        """
