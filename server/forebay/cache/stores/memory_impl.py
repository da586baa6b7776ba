"""Entries in this process: a tier in front of a store that lasts, or while there is none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from forebay.cache.entries import Sealed
from forebay.cache.stores.base import Held, Neighbour, Purge, Quotas
from forebay.cache.stores.tally import Tally

if TYPE_CHECKING:
    from forebay.cache.index import Index


class MemoryStore:
    """The least recently used go first. `put` and `find` are `add` and `get` for those who cannot wait."""

    def __init__(self, quotas: Quotas, now_ms: Callable[[], int], *, index: Index | None = None) -> None:
        """`now_ms`: Unix milliseconds. Without an index nothing is near anything."""
        self._quotas = quotas
        self._now_ms = now_ms
        self._index = index
        self._entries: OrderedDict[str, Sealed] = OrderedDict()
        self._of_tenant: dict[str, OrderedDict[str, None]] = {}
        self._tally = Tally()

    @property
    def num_bytes(self) -> int:
        return self._tally.num_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Sealed]:
        """Those that are there now, the most recently used first."""
        return iter(list(reversed(self._entries.values())))

    def find(self, entry_id: str) -> Sealed | None:
        """Used just now."""
        entry = self._entries.get(entry_id)
        if entry is None:
            return None
        if entry.expires_at <= self._now_ms():
            self._remove(entry)
            return None
        self._entries.move_to_end(entry_id)
        self._of_tenant[entry.tenant].move_to_end(entry_id)
        return entry

    def peek(self, entry_id: str) -> Sealed | None:
        """Which is no use of it."""
        return self._entries.get(entry_id)

    def put(self, entry: Sealed) -> None:
        if (older := self._entries.get(entry.id)) is not None:
            self._remove(older)
        quotas, num_bytes = self._quotas, entry.num_bytes
        if num_bytes > quotas.tenant_bytes or num_bytes > quotas.max_bytes:
            return
        while self._tally.bytes_of(entry.tenant) + num_bytes > quotas.tenant_bytes:
            self._remove_oldest(entry.tenant)
        while self._tally.num_bytes + num_bytes > quotas.max_bytes:
            self._remove_oldest(self._tally.largest())
        self._entries[entry.id] = entry
        self._of_tenant.setdefault(entry.tenant, OrderedDict())[entry.id] = None
        self._tally.count(entry.tenant, 1, num_bytes)
        if self._index is not None and entry.embedding is not None:
            self._index.add(entry.scope, [(entry.id, entry.embedding)])

    def discard(self, entry_id: str) -> bool:
        """Whether it was there."""
        entry = self._entries.get(entry_id)
        if entry is not None:
            self._remove(entry)
        return entry is not None

    def _remove_oldest(self, tenant: str) -> None:
        self._remove(self._entries[next(iter(self._of_tenant[tenant]))])

    def _remove(self, entry: Sealed) -> None:
        del self._entries[entry.id]
        del self._of_tenant[entry.tenant][entry.id]
        self._tally.count(entry.tenant, -1, -entry.num_bytes)
        if not self._of_tenant[entry.tenant]:
            del self._of_tenant[entry.tenant]
        if self._index is not None:
            self._index.remove(entry.scope, entry.id)

    def lacks(self, entry_id: str) -> bool:
        return entry_id not in self._entries

    async def get(self, entry_id: str) -> Sealed | None:
        return self.find(entry_id)

    async def add(self, *entries: Sealed) -> None:
        for entry in entries:
            self.put(entry)

    async def nearest(self, scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        if self._index is None:
            return []
        now = self._now_ms()
        found = [(cosine, self._entries[entry_id]) for entry_id, cosine in self._index.nearest(scope, embedding, k)]
        return [Neighbour(cosine, entry) for cosine, entry in found if entry.expires_at > now]

    async def touch(self, entry_id: str) -> None:
        self.find(entry_id)

    async def delete(self, entry_id: str) -> bool:
        return self.discard(entry_id)

    async def purge(self, *, tenant: str | None = None, model: str | None = None, epoch: int | None = None) -> int:
        return self.remove_all(
            [
                entry
                for entry in self._entries.values()
                if (tenant is None or entry.tenant == tenant)
                and (model is None or entry.model == model)
                and (epoch is None or entry.epoch < epoch)
            ]
        )

    def remove_all(self, entries: Sequence[Sealed]) -> int:
        for entry in entries:
            self._remove(entry)
        return len(entries)

    async def held(self) -> Mapping[str, Held]:
        return self._tally.by_tenant()

    async def sweep(self) -> int:
        now = self._now_ms()
        return self.remove_all([entry for entry in self._entries.values() if entry.expires_at <= now])

    async def purges(self) -> Sequence[Purge]:
        return []

    def num_losses(self) -> int:
        return 0

    async def ping(self, *, writes: bool = False) -> None:
        pass

    async def close(self) -> None:
        self.remove_all(list(self._entries.values()))
