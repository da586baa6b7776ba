"""The words of a list that are one slip of the finger away from a string, found by how words begin and end.

Trying every letter in every place takes half a millisecond for each name, which somebody would then want to remember.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class NearWords:
    """Of a fixed list; nothing is remembered of what is looked for."""

    def __init__(self, words: Iterable[str]) -> None:
        """Takes about 0.2 s and 30 MB for 150,000 words."""
        self._listed = frozenset(words)
        self._forwards = sorted(self._listed)
        self._backwards = sorted(word[::-1] for word in self._listed)

    def one_slip_from(self, word: str) -> frozenset[str]:
        """Those that have a letter missing, added, changed or swapped with its neighbour."""
        return self._listed.intersection(self._candidates(word))

    def _candidates(self, word: str) -> Iterator[str]:
        """What stands before a slip begins some word of the list, and what stands behind it ends one: few places are
        left."""
        length = len(word)
        begun, ended = _shared(self._forwards, word), _shared(self._backwards, word[::-1])
        for at in range(max(0, length - ended - 2), min(length, begun) + 1):
            head, tail = word[:at], word[at:]
            if at < length - 1:
                yield head + tail[1] + tail[0] + tail[2:]
            if length - ended - 1 <= at < length:
                yield head + tail[1:]
                yield from (head + letter + tail[1:] for letter in LETTERS)
            if at >= length - ended:
                yield from (head + letter + tail for letter in LETTERS)


def _shared(words: Sequence[str], word: str) -> int:
    """How many of its first letters at most any of the sorted words begins with: a neighbour in their order does."""
    at = bisect_left(words, word)
    return max((_common(word, near) for near in words[max(0, at - 1) : at + 1]), default=0)


def _common(one: str, other: str) -> int:
    num = 0
    for first, second in zip(one, other, strict=False):
        if first != second:
            break
        num += 1
    return num
