"""What is to be written to a store, while it gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

GATHER_S = 0.05
"""How long: what is written together costs little more than one of it."""

Write = Callable[[], Awaitable[object]]
Added = tuple[str, str]
"""Id and scope of an entry that is to be added."""


class Waiting:
    """In order, at most `most` of it; taken off when it is done. Lives on one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._writes: list[Write | Added] = []
        self._has_some = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def put(self, write: Write | Added) -> bool:
        """False where there is too much already."""
        if len(self._writes) >= self._most:
            return False
        self._writes.append(write)
        self._has_some.set()
        self._is_empty.clear()
        return True

    async def some(self) -> Sequence[Write | Added]:
        """All that has gathered, a moment after the first of it, or after `wake`."""
        await self._has_some.wait()
        await asyncio.sleep(GATHER_S)
        return list(self._writes)

    def wake(self) -> None:
        """Whoever waits for some goes on, and may find none."""
        self._has_some.set()

    def done(self, num: int) -> None:
        """The first so many are written, or given up."""
        del self._writes[:num]
        if not self._writes:
            self._has_some.clear()
            self._is_empty.set()

    async def all_done(self) -> None:
        await self._is_empty.wait()
