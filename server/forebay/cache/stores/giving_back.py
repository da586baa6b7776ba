"""What a store lacks is given back to it from memory, when it is there again or has lost what it held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from forebay.cache.entries import Sealed
from forebay.cache.stores.base import CacheStore, CacheUnavailable
from forebay.stores.breaker import FAILURES


async def give_back(entries: Iterable[Sealed], lasting: CacheStore, add: Callable[[str], Awaitable[None]]) -> int:
    """How many it lacked and has taken. `add`: by id. Raises `CacheUnavailable` where it takes none of several in a
    row: a full disk answers, too."""
    num = num_refused = 0
    for entry in entries:
        try:
            if await lasting.get(entry.id) is None:
                await add(entry.id)
                num += 1
            num_refused = 0
        except CacheUnavailable:
            # It may be this entry that is not taken.
            num_refused += 1
            if num_refused == FAILURES:
                raise
            await lasting.ping(writes=True)
    return num
