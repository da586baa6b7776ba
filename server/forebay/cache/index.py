"""The nearest texts of a scope, by brute force over their embeddings."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 16
MAX_ROWS = 4096
"""A block has as many rows as all before it together, within these: no row is copied to make room for another."""

ROW_BYTES = 200
"""What a row costs beside its numbers: an id, its place, the other way round."""

Vector = NDArray[np.float32]


def cosine(one: bytes, other: bytes) -> float:
    """Of two embeddings of unit length; -1, the least, for embeddings of different lengths."""
    if len(one) != len(other):
        return -1.0
    return float(np.frombuffer(one, "<f4") @ np.frombuffer(other, "<f4"))


class Index:
    """Embeddings of unit length, float32, by scope and id; a scope without any is not there. Threads may share it.

    One of another length than its scope's others comes from another embedder, and takes the place of them all.
    """

    def __init__(self) -> None:
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def num_bytes(self) -> int:
        """Of blocks, filled or not, and of ids."""
        with self._lock:
            return sum(scope.num_bytes for scope in self._scopes.values())

    def __contains__(self, scope: str) -> bool:
        return scope in self._scopes

    def add(self, scope: str, embeddings: Iterable[tuple[str, bytes]]) -> None:
        """Ids and their embeddings; in place of what was there under the same ids."""
        with self._lock:
            for entry_id, embedding in embeddings:
                if not embedding or len(embedding) % 4:
                    continue  # not ours: its seal will not hold
                row = np.frombuffer(embedding, dtype="<f4")
                found = self._scopes.get(scope)
                if found is None or found.dim != len(row):
                    found = self._scopes[scope] = _Scope(len(row))
                found.add(entry_id, row)

    def remove(self, scope: str, entry_id: str) -> None:
        with self._lock:
            if (found := self._scopes.get(scope)) is not None:
                found.remove(entry_id)
                if not found.ids:
                    del self._scopes[scope]

    def nearest(self, scope: str, embedding: bytes, k: int) -> list[tuple[str, float]]:
        """At most `k` ids with their cosines, the nearest first."""
        query = np.frombuffer(embedding, dtype="<f4")
        with self._lock:
            found = self._scopes.get(scope)
            if found is None or found.dim != len(query):
                return []
            self._scopes.move_to_end(scope)
            return found.nearest(query, k)

    def shrink(self, max_bytes: int) -> None:
        """Drops whole scopes, those first that were not searched for longest, but for the last of them."""
        with self._lock:
            num_bytes = sum(scope.num_bytes for scope in self._scopes.values())
            while num_bytes > max_bytes and len(self._scopes) > 1:
                num_bytes -= self._scopes.popitem(last=False)[1].num_bytes

    def clear(self) -> None:
        with self._lock:
            self._scopes.clear()


class _Scope:
    """Rows in blocks, in no order: the last one takes the place of one that goes."""

    __slots__ = ("_blocks", "_places", "_starts", "dim", "ids")

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: list[str] = []
        self._places: dict[str, int] = {}
        self._blocks: list[Vector] = []
        self._starts: list[int] = []

    @property
    def num_bytes(self) -> int:
        return sum(block.nbytes for block in self._blocks) + ROW_BYTES * len(self.ids)

    def add(self, entry_id: str, row: Vector) -> None:
        place = self._places.get(entry_id)
        if place is None:
            place = self._places[entry_id] = len(self.ids)
            self.ids.append(entry_id)
            capacity = self._starts[-1] + len(self._blocks[-1]) if self._blocks else 0
            if place == capacity:
                self._starts.append(capacity)
                self._blocks.append(np.empty((min(max(capacity, FIRST_ROWS), MAX_ROWS), self.dim), np.float32))
        self._row(place)[:] = row

    def remove(self, entry_id: str) -> None:
        place = self._places.pop(entry_id, None)
        if place is None:
            return
        last = self.ids.pop()
        if last != entry_id:
            self._row(place)[:] = self._row(len(self.ids))
            self.ids[place], self._places[last] = last, place
        # One empty block stays, so that coming and going at its edge costs nothing.
        if len(self._starts) > 1 and len(self.ids) <= self._starts[-2]:
            self._starts.pop()
            self._blocks.pop()

    def nearest(self, query: Vector, k: int) -> list[tuple[str, float]]:
        num = len(self.ids)
        cosines = np.empty(num, np.float32)
        for start, block in zip(self._starts, self._blocks, strict=True):
            end = min(start + len(block), num)
            if start < end:
                np.dot(block[: end - start], query, out=cosines[start:end])
        best = np.argpartition(cosines, num - k)[num - k :] if k < num else np.arange(num)
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [(self.ids[place], float(cosines[place])) for place in best]

    def _row(self, place: int) -> Vector:
        """Of the block that it is in: the last that does not begin after it."""
        position = len(self._starts) - 1
        while self._starts[position] > place:
            position -= 1
        row: Vector = self._blocks[position][place - self._starts[position]]
        return row
