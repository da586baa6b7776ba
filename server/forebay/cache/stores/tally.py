"""How much is held, in all and by tenant."""

from __future__ import annotations

from collections.abc import Iterable

from forebay.cache.stores.base import Held


class Tally:
    """A tenant without entries is not in it."""

    def __init__(self, held: Iterable[tuple[str, int, int]] = ()) -> None:
        """`held`: tenant, entries, bytes."""
        self._held = {tenant: Held(num_entries, num_bytes) for tenant, num_entries, num_bytes in held}
        self.num_bytes = sum(one.num_bytes for one in self._held.values())

    def bytes_of(self, tenant: str) -> int:
        held = self._held.get(tenant)
        return 0 if held is None else held.num_bytes

    def largest(self) -> str:
        """The tenant with most bytes; there is one."""
        return max(self._held, key=lambda tenant: self._held[tenant].num_bytes)

    def count(self, tenant: str, num_entries: int, num_bytes: int) -> None:
        """So many more, or less."""
        held = self._held.get(tenant, Held(0, 0))
        held = Held(held.num_entries + num_entries, held.num_bytes + num_bytes)
        self.num_bytes += num_bytes
        if held.num_entries > 0:
            self._held[tenant] = held
        else:
            self._held.pop(tenant, None)

    def by_tenant(self) -> dict[str, Held]:
        return dict(self._held)
