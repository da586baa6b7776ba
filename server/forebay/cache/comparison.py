"""Whether two answers say the same: the labels' judge, which in doubt says no."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING

from forebay.cache.alignment import align
from forebay.cache.analysis import MAX_WORDS, analyse
from forebay.cache.guards import refusal
from forebay.cache.normal_form import normalised
from forebay.cache.verifier import Verifier

if TYPE_CHECKING:
    from forebay.embedding.batcher import TextEmbedder

SAME_COSINE = 0.9
"""Of short answers that no guard tells apart."""

MISSED = 0.03
"""Share of different answers that may be taken for the same. Of 1,142 pairs of messages made to look alike (a sample of
benchmarks/cache_pairs and all of its public traps) 2.1% were, at most 3.1% with 95% confidence; of the equal ones in
other words 66% were found to be so."""

_MARKS = re.compile(r"[*_`#>~|]+|^[ \t]*[-+]\s", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")


class Comparison:
    """The same words; else, of answers that guards can read whole, the same numbers, no guard that tells them apart,
    and embeddings that lie close; else what the served model says, if it has earned it."""

    def __init__(self, embedder: TextEmbedder, verifier: Verifier | None) -> None:
        self._embedder = embedder
        self._verifier = verifier

    async def same(self, question: str, one: str, other: str, tenant: str) -> bool:
        """Raises what the embedder raises. `tenant`: whose answers they are."""
        if plain(one) == plain(other):
            return True
        if Counter(_NUMBER.findall(one)) != Counter(_NUMBER.findall(other)):
            return False
        if await self._close(plain(one), plain(other), tenant):
            return True
        return self._verifier is not None and await self._verifier.same_answer(question, one, other, tenant) is True

    async def _close(self, one: str, other: str, tenant: str) -> bool:
        """Of longer answers an embedding says too little: it is made of their first words."""
        if max(len(one.split()), len(other.split())) > MAX_WORDS:
            return False
        if await asyncio.to_thread(_told_apart, one, other):
            return False
        ours, theirs = [await self._embedder.embed(text, apart=tenant) for text in (one, other)]
        return float(ours @ theirs) >= SAME_COSINE


def _told_apart(one: str, other: str) -> bool:
    """By a guard."""
    first, second = analyse(one), analyse(other)
    return refusal(first, second, align(first, second)) is not None


def plain(text: str) -> str:
    """Without marks of formatting, case, and spaces beyond one; without a full stop at the end."""
    text = normalised("NFKC", _MARKS.sub(" ", text)).casefold()
    return " ".join(text.split()).rstrip(" .!")
