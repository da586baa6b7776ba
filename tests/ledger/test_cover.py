"""How far answers may be ahead of the disk, to the token."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from forebay.ledger.account import ALLOWANCE, Account
from forebay.ledger.ledger import Ledger
from forebay.observe.record import RequestRecord
from forebay.stores.database import Database
from forebay.types import Caller, Usage


@asynccontextmanager
async def opened(folder: Path, *, strict: bool) -> AsyncIterator[tuple[Account, Database]]:
    """An account whose reservation is durable."""
    database = Database(folder)
    ledger = Ledger(database, b"s" * 32, None, strict=strict, lease_s=60)
    ledger.begin()
    record = RequestRecord("0" * 32, "POST", route="/r", model="m", stream=True)
    account = await ledger.open(
        Caller("t", "k"),
        record,
        at=1_800_000_000_000,
        prompt_tokens=1,
        completion_tokens=100,
        cost=0,
        on_settled=lambda num_tokens, cost: None,
    )
    yield account, database
    account.settle("complete", Usage(1, 100), Usage(1, 100))
    await ledger.close(5)


@contextmanager
def slow_disk(database: Database) -> Iterator[None]:
    """Commits nothing until it is left."""
    faster = threading.Event()

    def wait(connection: sqlite3.Connection) -> None:
        faster.wait(20)

    waiting = asyncio.ensure_future(database.write(wait))
    try:
        yield
    finally:
        faster.set()
        waiting.add_done_callback(lambda task: task.result())


async def let_writer_in() -> None:
    """Long enough for the writer to take up what it was handed."""
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(("strict", "free"), [(False, ALLOWANCE), (True, 0)])
async def test_so_many_tokens_leave_before_the_disk_has_any(tmp_path: Path, strict: bool, free: int) -> None:
    """16 by default, none in strict mode; the next one waits for the disk."""
    async with opened(tmp_path, strict=strict) as (account, database):
        with slow_disk(database):
            await let_writer_in()
            assert all(account.covers(num_tokens) for num_tokens in range(free + 1))
            assert not account.covers(free + 1)
            waiting = asyncio.ensure_future(account.cover(free + 1))
            await let_writer_in()
            assert not waiting.done()
        await asyncio.wait_for(waiting, 5)


async def test_checkpoints_are_asked_for_ahead(tmp_path: Path) -> None:
    """A stream that is no faster than the disk never waits for it."""
    async with opened(tmp_path, strict=False) as (account, database):
        for num_tokens in range(1, 100):
            assert account.covers(num_tokens), num_tokens
            if num_tokens % 4 == 0:
                await database.write(lambda connection: None)
