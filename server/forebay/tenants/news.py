"""What this server has to say to Redis: what came back, what runs here, and, from time to time, all that it holds."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from forebay.tenants.grants import Grant
from forebay.tenants.parties import Party

Refund = tuple[str, int, int, int]
"""A bucket's name, its two rates, and an amount that comes back to its tokens."""


@dataclass(slots=True)
class News:
    """Gathers until it is said. `spent`: of these less may be held than before; `ran`: whose requests have ended."""

    spent: dict[str, Grant] = field(default_factory=dict)
    ran: set[Party] = field(default_factory=set)
    refunds: list[Refund] = field(default_factory=list)

    def unsaid(self, later: News) -> News:
        """Both, after a failure. Refunds are not said twice: they matter for a minute, and may have been heard."""
        return News(self.spent | later.spent, self.ran | later.ran, later.refunds)


class Seeding:
    """All that this server holds, said in parts. A token tells that nothing was wiped from the first to the last."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._grants = list(grants)
        self._token = secrets.token_hex(8)
        self._begun = False

    def next(self, most: int) -> tuple[str | None, list[Grant], str | None]:
        """The token if this is the first part, the part, the token if it is the last."""
        part, self._grants = self._grants[:most], self._grants[most:]
        begins = None if self._begun else self._token
        self._begun = True
        return begins, part, None if self._grants else self._token
