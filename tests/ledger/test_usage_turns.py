"""No tenant keeps the usage API from the others, however much it asks."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from forebay.errors import RateLimited
from forebay.ledger.usage import MAX_WAITING, UsageQuery, UsageReader
from forebay.stores.database import Database

QUERY = UsageQuery(0, 60, 60, 1)


class SlowFile:
    """Reads end when they are let go; `running` is how many have begun."""

    def __init__(self) -> None:
        self.running = 0
        self.go = asyncio.Event()

    async def read(self, call: Any) -> list[Any]:
        self.running += 1
        await self.go.wait()
        return []


async def test_a_tenant_has_one_reader() -> None:
    """Its other queries wait, few of them; the next is told to come back. Another tenant's finds a reader."""
    file = SlowFile()
    reader = UsageReader(cast(Database, file))
    greedy = [asyncio.create_task(reader.tokens(QUERY, "greedy")) for _ in range(MAX_WAITING)]
    other = asyncio.create_task(reader.costs(QUERY, "other"))
    await asyncio.sleep(0)
    with pytest.raises(RateLimited) as refusal:
        await reader.tokens(QUERY, "greedy")
    assert refusal.value.retry_after_s is not None
    assert file.running == 2
    file.go.set()
    assert await asyncio.gather(*greedy, other) == [[]] * (MAX_WAITING + 1)
    assert await reader.tokens(QUERY, "greedy") == []
