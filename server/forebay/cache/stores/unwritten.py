"""What is stored and not yet written: near all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forebay.cache.entries import Sealed
from forebay.cache.stores.base import Neighbour
from forebay.cache.stores.memory_impl import MemoryStore

if TYPE_CHECKING:
    from forebay.cache.index import Index


class Unwritten:
    """The entries themselves are in the memory tier. Without an `index` nothing is ever near."""

    def __init__(self, memory: MemoryStore, index: Index | None) -> None:
        self._memory = memory
        self._index = index

    def add(self, entry: Sealed) -> None:
        if self._index is not None and entry.embedding is not None:
            self._index.add(entry.scope, [(entry.id, entry.embedding)])

    def remove(self, entry_id: str, scope: str) -> None:
        """Also what was never added."""
        if self._index is not None:
            self._index.remove(scope, entry_id)

    def beside(self, found: Sequence[Neighbour], scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        """The nearest `k` of those that were `found` and of these."""
        if self._index is None or scope not in self._index:
            return found[:k]
        near = [(cosine, self._memory.peek(name)) for name, cosine in self._index.nearest(scope, embedding, k)]
        own = [Neighbour(cosine, entry) for cosine, entry in near if entry is not None]
        known = {each.entry.id for each in own}
        both = [*own, *(each for each in found if each.entry.id not in known)]
        return sorted(both, key=lambda each: -each.cosine)[:k]
