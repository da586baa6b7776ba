"""What this server may spend of budgets that it shares with others: never more than it has been granted."""

from __future__ import annotations

from collections.abc import Iterable

from forebay.tenants.ask import Ask, Claim
from forebay.tenants.parties import Party
from forebay.tenants.windows import KINDS, WindowKind, end_of, index_of

KEPT_MS = 62 * 86_400_000
"""How long the shared sums of a window are kept after its end, for clocks that are set back."""


class Grant:
    """Of one window of a key or tenant, in tokens or money. `amount` covers what is spent, held, and neither yet.

    Others see what was said last, so `amount` is lowered before it is said and raised only when that was answered.
    """

    __slots__ = ("_ends_at", "_sum", "_unit", "amount", "key", "reserve")

    def __init__(self, party: Party, unit: str, kind: WindowKind, day: int) -> None:
        end = end_of(kind, day)
        self.key = f"{name_of(party)}:{unit}:{kind}:{index_of(kind, day)}"
        self._ends_at = None if end is None else int(end.timestamp() * 1000)
        self.amount = 0
        self.reserve = 0
        """What may be kept beyond the need, to go on with while Redis is away."""
        self._sum = party.spending.sum(kind, day)
        self._unit = unit

    @property
    def used(self) -> int:
        return self._sum.of(self._unit)

    @property
    def left(self) -> int:
        """What may be granted to a request without asking anybody."""
        return self.amount - self.used

    def lasts_ms(self, now: int) -> int | None:
        """How long Redis is to keep the window from `now` (Unix milliseconds) on; None: for ever. In no case is it
        short, for the clock that says so may be wrong."""
        return None if self._ends_at is None else max(0, self._ends_at - now) + KEPT_MS

    def has_ended(self, now: int) -> bool:
        """So long ago that nobody asks for it any more."""
        return self._ends_at is not None and self._ends_at + KEPT_MS < now

    def lower(self) -> int:
        """Lets go of what is neither used nor reserve. Returns the amount, to be said."""
        used = self.used
        self.amount = max(used, min(self.amount, used + self.reserve))
        return self.amount


class Grants:
    """All that this server holds, by window."""

    def __init__(self, reserve: float) -> None:
        """`reserve`: the part of a hard budget that is kept beyond the need."""
        self._reserve = reserve
        self._grants: dict[tuple[Party, str, WindowKind, int], Grant] = {}

    def of(self, claim: Claim, day: int) -> Grant:
        budget = claim.budget
        grant = self._get(claim.party, budget.unit, budget.window, day)
        if budget.hard:
            grant.reserve = int(self._reserve * budget.amount)
        return grant

    def of_all(self, ask: Ask) -> list[Grant]:
        """One for each claim."""
        return [self.of(claim, ask.day) for claim in ask.claims]

    def seed(self, parties: Iterable[Party], day: int) -> list[Grant]:
        """Every window of that day in which something was spent, and every grant that there was before."""
        for party in parties:
            for kind in KINDS:
                there = party.spending.sum(kind, day)
                for unit in ("tokens", "money"):
                    if there.of(unit):
                        self._get(party, unit, kind, day)
        return list(self._grants.values())

    def drop_old(self, now: int) -> None:
        """`now` in Unix milliseconds."""
        self._grants = {key: grant for key, grant in self._grants.items() if not grant.has_ended(now)}

    def _get(self, party: Party, unit: str, kind: WindowKind, day: int) -> Grant:
        key = (party, unit, kind, index_of(kind, day))
        grant = self._grants.get(key)
        if grant is None:
            grant = self._grants[key] = Grant(party, unit, kind, day)
        return grant


def name_of(party: Party) -> str:
    """In Redis. The name of a tenant has no colon."""
    return f"t:{party.tenant}" if party.key_id is None else f"k:{party.tenant}:{party.key_id}"
