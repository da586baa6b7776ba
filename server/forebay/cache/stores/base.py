"""What keeps sealed entries: the protocol of every store. Every implementation passes tests/cache/test_stores.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from forebay.cache.entries import Sealed
from forebay.errors import ForebayError


class CacheUnavailable(ForebayError):
    """The store gave no answer, or not in time. `reason` is a word or two of ours."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry whose text is near, and how near: the cosine of the two embeddings."""

    cosine: float
    entry: Sealed


def merged(k: int, *found: Sequence[Neighbour]) -> list[Neighbour]:
    """The `k` nearest of what was found in several places, each entry once: as the first of them has it."""
    by_id: dict[str, Neighbour] = {}
    for near in chain.from_iterable(found):
        by_id.setdefault(near.entry.id, near)
    # Of the same text in other manners what was stored first, wherever it lies.
    return sorted(by_id.values(), key=lambda near: (-round(near.cosine, 6), near.entry.created_at))[:k]


@dataclass(frozen=True, slots=True)
class Held:
    """What a tenant's entries come to."""

    num_entries: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bytes that may be kept. The least recently used entries give way: beyond a tenant's bytes its own, beyond all
    those of whoever has most."""

    max_bytes: int
    tenant_bytes: int


@dataclass(frozen=True, slots=True)
class Purge:
    """What went: one entry, or all of a tenant, a model, epochs before one, as far as these are given."""

    entry_id: str | None = None
    tenant: str | None = None
    model: str | None = None
    epoch: int | None = None


class CacheStore(Protocol):
    """Entries by their ids, which are their exact keys. What has expired is not found, whether it was swept or not.

    Every call may raise `CacheUnavailable`. Nothing is checked: whoever reads opens the seal.
    """

    def lacks(self, entry_id: str) -> bool:
        """It is known without asking that this is not there; no call, and never raises."""

    async def get(self, entry_id: str) -> Sealed | None: ...

    async def add(self, *entries: Sealed) -> None:
        """In place of what was there under their ids. Makes room first; one that is larger than a quota is left out."""

    async def nearest(self, scope: str, embedding: bytes, k: int) -> Sequence[Neighbour]:
        """At most `k` of the scope's entries with an embedding, the nearest first."""

    async def touch(self, entry_id: str) -> None:
        """It was used just now."""

    async def delete(self, entry_id: str) -> bool:
        """Whether it was there."""

    async def purge(self, *, tenant: str | None = None, model: str | None = None, epoch: int | None = None) -> int:
        """How many went. What is given must all be so: of the tenant, of the model, of an epoch below `epoch`."""

    async def held(self) -> Mapping[str, Held]:
        """By tenant."""

    async def sweep(self) -> int:
        """Removes what has expired; how many went."""

    async def purges(self) -> Sequence[Purge]:
        """What others who use the same store have purged and deleted since this was asked last."""

    def num_losses(self) -> int:
        """How often `purges` found that all of it was lost since it was asked before; no call, and never raises."""

    async def ping(self, *, writes: bool = False) -> None:
        """Whether it answers, and takes writes."""

    async def close(self) -> None:
        """Idempotent."""
