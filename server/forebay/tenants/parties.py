"""Keys and tenants as limits and budgets know them, and what is kept of those that ask no more."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from forebay.tenants.limits import Limits, is_limited
from forebay.tenants.spending import Spending, Sum
from forebay.types import Budget, Caller, Policy

Name = tuple[str, str | None]
"""A tenant and a key of its; None: the tenant itself."""


class Party:
    """A key or a tenant. A tenant has no key id. `name` is what errors call it."""

    __slots__ = ("key_id", "limits", "name", "num_keys", "spending", "tenant")

    def __init__(self, tenant: str, key_id: str | None, spent: Sequence[int] = ()) -> None:
        """`spent`: what `Spending.rows` gave."""
        self.name = "tenant" if key_id is None else "key"
        self.tenant = tenant
        self.key_id = key_id
        self.limits = Limits()
        self.spending = Spending(spent)
        self.num_keys = 0
        """Of a tenant: those that are awake."""


class Standing:
    """A key and its tenant with what their policies ask, worked out once for all requests under these policies."""

    __slots__ = ("_budgets", "_day", "has_hard_money", "has_hard_tokens", "is_limited", "key_policy", "limited",
                 "parties", "tenant_policy", "token_limit", "unlimited", "with_policies")  # fmt: skip

    def __init__(self, key: Party, key_policy: Policy, tenant: Party, tenant_policy: Policy) -> None:
        self.key_policy = key_policy
        self.tenant_policy = tenant_policy
        self.parties = (key, tenant)
        self.with_policies = ((key, key_policy), (tenant, tenant_policy))
        self.limited = tuple(pair for pair in self.with_policies if is_limited(pair[1]))
        """By anything but budgets."""
        self.is_limited = bool(self.limited)
        self.unlimited = tuple(party for party, policy in self.with_policies if not is_limited(policy))
        limits = [policy.tokens_per_minute for _, policy in self.limited]
        self.token_limit = min((limit for limit in limits if limit is not None), default=None)
        """The lower one; None: neither is limited."""
        hard = {budget.unit for _, policy in self.with_policies for budget in policy.budgets if budget.hard}
        self.has_hard_tokens = "tokens" in hard
        self.has_hard_money = "money" in hard
        self._budgets: tuple[tuple[Party, Budget, Sum], ...] = ()
        self._day: int | None = None

    def budgets(self, day: int) -> tuple[tuple[Party, Budget, Sum], ...]:
        """All of both, with what was spent in the windows of that day; the sums stay up to date."""
        if day != self._day:
            self._budgets = tuple(
                (party, budget, party.spending.sum(budget.window, day))
                for party, policy in self.with_policies
                for budget in policy.budgets
            )
            self._day = day
        return self._budgets


class Parties:
    """All that have spent or asked.

    What rests is kept as what it has spent, 24 bytes a day, and when it asks again all is as it was, but for how long
    its requests lasted. A party rests once its limits are as good as new, a tenant only while none of its keys is
    awake. With each that wakes two others are looked at in turn, so those awake are `num_ready`, or not many more than
    asked in the last minutes.
    """

    def __init__(self, steady_ms: Callable[[], int], *, num_ready: int, can_rest: bool) -> None:
        """`num_ready`: how many stay awake in any case. `can_rest` False: others refer to parties, so all do."""
        self._steady_ms = steady_ms
        self._num_ready = num_ready
        self._can_rest = can_rest
        self._standings: dict[Name, Standing] = {}
        self._awake: dict[Name, Party] = {}
        self._line: deque[Name] = deque()
        """Those awake, in the order in which they are looked at."""
        self._resting: dict[Name, array[int]] = {}

    @property
    def num_awake(self) -> int:
        return len(self._awake)

    def seed(self, rows: Iterable[tuple[int, str, str, int, int]]) -> None:
        """Before anybody asks: (UTC day, tenant, key id, tokens, cost) that were spent."""
        for day, tenant, key_id, num_tokens, cost in rows:
            for name in ((tenant, key_id), (tenant, None)):
                self._resting.setdefault(name, array("q")).extend((day, num_tokens, cost))

    def all(self) -> Iterable[Party]:
        """Awake from now on."""
        for name in list(self._resting):
            self._wake(name)
        return self._awake.values()

    def standing_of(self, caller: Caller) -> Standing:
        standing = self._standings.get((caller.tenant, caller.key_id))
        if (
            standing is None
            or standing.key_policy is not caller.key_policy
            or standing.tenant_policy is not caller.tenant_policy
        ):
            standing = self._stand(caller)
        return standing

    def _stand(self, caller: Caller) -> Standing:
        name = (caller.tenant, caller.key_id)
        tenant, key = self._wake((caller.tenant, None)), self._wake(name)
        if name not in self._standings:
            tenant.num_keys += 1
        standing = self._standings[name] = Standing(key, caller.key_policy, tenant, caller.tenant_policy)
        for party in standing.unlimited:
            party.limits.lift()
        if self._can_rest and len(self._line) > self._num_ready:
            self._let_rest()
        return standing

    def _wake(self, name: Name) -> Party:
        party = self._awake.get(name)
        if party is None:
            party = self._awake[name] = Party(*name, self._resting.pop(name, ()))
            self._line.append(name)
        return party

    def _let_rest(self) -> None:
        """Two at most, and none that has woken just now."""
        now = self._steady_ms()
        for _ in range(min(2, len(self._line) - 2)):
            name = self._line.popleft()
            party = self._awake[name]
            if party.num_keys or not party.limits.is_at_rest(now):
                self._line.append(name)
                continue
            del self._awake[name]
            if spent := party.spending.rows():
                self._resting[name] = spent
            if (standing := self._standings.pop(name, None)) is not None:
                standing.parties[1].num_keys -= 1
