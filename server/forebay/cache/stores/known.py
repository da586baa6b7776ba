"""Which ids a store may have: asked in front of it, so that what it surely lacks costs no way to it."""

from __future__ import annotations

from collections.abc import Iterable

BITS_AN_ID = 16
NUM_PROBES = 4
"""With as many bits, of which each id sets as many, one in 400 of those that are not there is taken to be."""


class Known:
    """A Bloom filter (CACM 13(7), 1970), its probes by double hashing (Kirsch and Mitzenmacher, 2008).

    Before `begin` it may have every id. Nothing leaves it, so once as many were added as it is made for it is to be
    begun anew. One thread writes; others read.
    """

    def __init__(self, num_ids: int) -> None:
        self._num_ids = max(1024, num_ids)
        self._mask = (1 << (self._num_ids * BITS_AN_ID - 1).bit_length()) - 1
        self._bits: bytearray | None = None
        self._num_added = 0

    @property
    def is_full(self) -> bool:
        """So that it is to be begun, or begun anew."""
        return self._bits is None or self._num_added >= self._num_ids

    def begin(self, ids: Iterable[str]) -> None:
        """With all that are there now."""
        bits = bytearray((self._mask >> 3) + 1)
        for entry_id in ids:
            self._set(bits, entry_id)
        self._bits, self._num_added = bits, 0

    def add(self, entry_id: str) -> None:
        if self._bits is not None:
            self._set(self._bits, entry_id)
            self._num_added += 1

    def __contains__(self, entry_id: str) -> bool:
        """Surely for one that was added, and hardly ever for another."""
        if (bits := self._bits) is None:
            return True
        mask, number = self._mask, hash(entry_id)
        step = number >> 32 | 1
        for _ in range(NUM_PROBES):
            place = number & mask
            if not bits[place >> 3] & 1 << (place & 7):
                return False
            number += step
        return True

    def _set(self, bits: bytearray, entry_id: str) -> None:
        mask, number = self._mask, hash(entry_id)
        step = number >> 32 | 1
        for _ in range(NUM_PROBES):
            place = number & mask
            bits[place >> 3] |= 1 << (place & 7)
            number += step
