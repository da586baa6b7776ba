"""Stores of the cache for tests, and the clock they go by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forebay.cache.stores.base import CacheStore, Quotas
from support.entries import NOW_MS

AMPLE = Quotas(max_bytes=1 << 24, tenant_bytes=1 << 24)


@dataclass
class Clock:
    now: int = NOW_MS

    def __call__(self) -> int:
        return self.now


@dataclass
class Stores:
    """Makes stores of one kind that use the same file, or the same Redis; a memory tier is its own."""

    make: Callable[[Quotas], CacheStore]
    clock: Clock
    made: list[CacheStore] = field(default_factory=list)

    def __call__(self, quotas: Quotas = AMPLE) -> CacheStore:
        self.made.append(self.make(quotas))
        return self.made[-1]


class Watched:
    """A store that counts what it is asked for."""

    def __init__(self, inner: CacheStore) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()

    def lacks(self, entry_id: str) -> bool:
        """Which asks nobody."""
        return self.inner.lacks(entry_id)

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.inner, name)
