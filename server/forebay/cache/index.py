"""The nearest texts of a scope: all embeddings in short, then the best of these in full."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FIRST_ROWS = 16
MAX_ROWS = 4096
"""A block has as many rows as all before it together, within these: no row is copied to make room for another."""

ROW_BYTES = 200
"""What a row costs beside its numbers: an id, its place, the other way round."""

SKETCH_DIM = 64
"""Numbers that stand for an embedding in a large scope: its random projection (Johnson and Lindenstrauss 1984), a sixth
of what is to be read. Scopes of an embedder with no more than that many have none."""

SHORTLIST = 512
"""Rows whose sketches come nearest, and whose embeddings are looked at; in scopes of up to eight times as many, all."""

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

    def __init__(self, max_bytes: int | None = None) -> None:
        """At most `max_bytes`, but for the first rows of one scope: others go first, those whole that were not searched
        for longest, then the rows of the scope itself that were added first."""
        self.max_bytes = max_bytes
        self.num_bytes = 0
        """Of blocks, filled or not, and of ids."""
        self.num_dropped = 0
        """Embeddings that went because there was no room."""
        self._scopes: OrderedDict[str, _Scope] = OrderedDict()
        self._lock = threading.Lock()

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
                    self._drop(scope)
                    found = self._scopes[scope] = _Scope(len(row))
                if found.is_full and entry_id not in found:
                    self._make_room(scope, found)
                found.add(entry_id, row)

    def remove(self, scope: str, entry_id: str) -> None:
        with self._lock:
            if (found := self._scopes.get(scope)) is not None:
                num_bytes = found.num_bytes
                found.remove(entry_id)
                self.num_bytes -= num_bytes - found.num_bytes
                if not found.ids:
                    self._drop(scope)

    def nearest(self, scope: str, embedding: bytes, k: int) -> list[tuple[str, float]]:
        """At most `k` ids with their cosines, the nearest first."""
        query = np.frombuffer(embedding, dtype="<f4")
        with self._lock:
            found = self._scopes.get(scope)
            if found is None or found.dim != len(query):
                return []
            self._scopes.move_to_end(scope)
            return found.nearest(query, k)

    def clear(self) -> None:
        with self._lock:
            self._scopes.clear()
            self.num_bytes = 0

    def _make_room(self, scope: str, found: _Scope) -> None:
        """For a row of a scope that is full."""
        num_rows = found.num_next
        while (room := self._room(found)) < num_rows and len(self._scopes) > 1:
            longest_ago = next(name for name in self._scopes if name != scope)
            self.num_dropped += len(self._scopes[longest_ago].ids)
            self._drop(longest_ago)
        if found.ids and room < FIRST_ROWS:
            found.remove(found.oldest)
            self.num_dropped += 1
        else:
            num_rows = max(min(num_rows, room), FIRST_ROWS)
            found.grow(num_rows)
            self.num_bytes += num_rows * found.row_bytes

    def _room(self, found: _Scope) -> int:
        """Rows that there is room for."""
        return MAX_ROWS if self.max_bytes is None else (self.max_bytes - self.num_bytes) // found.row_bytes

    def _drop(self, scope: str) -> None:
        if (gone := self._scopes.pop(scope, None)) is not None:
            self.num_bytes -= gone.num_bytes


class _Block(NamedTuple):
    """`rows` has (rows, dim) numbers, `sketches` (rows, up to SKETCH_DIM)."""

    rows: Vector
    sketches: Vector


class _Scope:
    """Rows in blocks, in no order: the last one takes the place of one that goes. `_places` has the ids in the order in
    which they were added."""

    __slots__ = ("_blocks", "_places", "_projection", "_starts", "capacity", "dim", "ids", "row_bytes")

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.ids: list[str] = []
        self._places: dict[str, int] = {}
        self._projection = _projection(dim)
        self._blocks: list[_Block] = []
        self._starts: list[int] = []
        self.capacity = 0
        self.row_bytes = 4 * sum(self._projection.shape) + ROW_BYTES

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._places

    @property
    def num_bytes(self) -> int:
        return self.capacity * self.row_bytes

    @property
    def is_full(self) -> bool:
        return len(self.ids) == self.capacity

    @property
    def num_next(self) -> int:
        """Rows that the next block is to have."""
        return min(max(self.capacity, FIRST_ROWS), MAX_ROWS)

    @property
    def oldest(self) -> str:
        return next(iter(self._places))

    def grow(self, num_rows: int) -> None:
        self._starts.append(self.capacity)
        self._blocks.append(_Block(*(np.zeros((num_rows, width), np.float32) for width in self._projection.shape)))
        self.capacity += num_rows

    def add(self, entry_id: str, row: Vector) -> None:
        """Where it is new there is room for it."""
        place = self._places.get(entry_id)
        if place is None:
            place = self._places[entry_id] = len(self.ids)
            self.ids.append(entry_id)
        self._put(place, row, row @ self._projection)

    def remove(self, entry_id: str) -> None:
        place = self._places.pop(entry_id, None)
        if place is None:
            return
        last = self.ids.pop()
        if last != entry_id:
            block, row = self._find(len(self.ids))
            self._put(place, block.rows[row], block.sketches[row])
            self.ids[place], self._places[last] = last, place
        # One empty block stays, so that coming and going at its edge costs nothing.
        if len(self._starts) > 1 and len(self.ids) <= self._starts[-2]:
            self.capacity = self._starts.pop()
            self._blocks.pop()

    def nearest(self, query: Vector, k: int) -> list[tuple[str, float]]:
        num = len(self.ids)
        if num <= 8 * SHORTLIST or not self._projection.size:
            places = np.arange(num)
            cosines = np.concatenate([block.rows @ query for block in self._blocks])[:num]
        else:
            sketch = query @ self._projection
            likeness = np.concatenate([block.sketches @ sketch for block in self._blocks])[:num]
            places = np.sort(_largest(likeness, max(k, SHORTLIST)))
            parts = np.split(places, np.searchsorted(places, self._starts[1:]))
            blocks = zip(self._starts, self._blocks, parts, strict=True)
            cosines = np.concatenate([block.rows[part - start] @ query for start, block, part in blocks])
        best = _largest(cosines, k)
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [(self.ids[places[one]], float(cosines[one])) for one in best]

    def _put(self, place: int, row: Vector, sketch: Vector) -> None:
        block, at = self._find(place)
        block.rows[at], block.sketches[at] = row, sketch

    def _find(self, place: int) -> tuple[_Block, int]:
        """The block that it is in, the last that does not begin after it, and where in it."""
        position = len(self._starts) - 1
        while self._starts[position] > place:
            position -= 1
        return self._blocks[position], place - self._starts[position]


@cache
def _projection(dim: int) -> Vector:
    """(dim, SKETCH_DIM), columns at right angles; (dim, 0) where a sketch would be no shorter."""
    if dim <= SKETCH_DIM:
        return np.empty((dim, 0), np.float32)
    drawn = np.random.default_rng(0).normal(size=(dim, SKETCH_DIM))
    return np.linalg.qr(drawn)[0].astype(np.float32)


def _largest(values: Vector, num: int) -> NDArray[np.intp]:
    """Places of the `num` largest, in no order."""
    if num >= len(values):
        return np.arange(len(values))
    return np.argpartition(values, len(values) - num)[len(values) - num :]
