"""What waits together is one commit, of which a write that cannot be applied falls out alone."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import StorageUnavailable
from forebay.ledger.writes import LedgerWrites, Posting
from forebay.stores import group_commit
from forebay.stores.group_commit import WRITE_BACK_MOST, GroupCommit
from forebay.stores.sqlite import FILE_NAME, open_file
from forebay.stores.writing import CALLS
from ledger.test_one_statement import DONE, HELD
from support.guards import becomes


class Book:
    """The writer, and what it is given."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.writer = GroupCommit(connection)
        self.writes = LedgerWrites(bytes(32))

    def reserve(self, name: str) -> asyncio.Future[Any]:
        return self.writer.write(self.writes.reserve, (HELD._replace(request_id=name), 0))

    def checkpoint(self, name: str, num_tokens: int) -> asyncio.Future[Any]:
        return self.writer.write(self.writes.checkpoint, (name, num_tokens))

    def settle(self, name: str, also: Any = None) -> asyncio.Future[Any]:
        posting = Posting(DONE._replace(request_id=name), also=also)
        return self.writer.write(self.writes.post, posting, kept=True)

    async def settled(self) -> list[str]:
        rows = await self.writer.call(
            lambda file: file.execute("SELECT request_id FROM entries ORDER BY seq").fetchall()
        )
        return [name for (name,) in rows]


@asynccontextmanager
async def book(folder: Path) -> AsyncIterator[Book]:
    made = Book(open_file(folder))
    await made.reserve("first")
    await made.settle("first")  # reads where the chain stands
    yield made
    assert await made.writer.close(5)


async def test_kinds_that_wait_together_are_one_transaction(tmp_path: Path) -> None:
    """Reservations, checkpoints, settlements in this order, in whatever order they came; calls after it."""
    async with book(tmp_path) as of:
        await of.reserve("a")
        said: list[str] = []
        of.connection.set_trace_callback(said.append)
        num_commits = of.writer.num_commits
        settled, called = of.settle("b"), of.writer.call(lambda file: said.append("call"))
        waiting = [settled, of.checkpoint("a", 5), of.reserve("b"), asyncio.ensure_future(called)]
        assert (await asyncio.gather(*waiting))[0] is True
        of.connection.set_trace_callback(None)
        words = [statement.split()[0] for statement, _ in groupby(said)]  # traced anew for each trigger
        assert words[: words.index("COMMIT") + 1] == ["BEGIN", "INSERT", "WITH", "INSERT", "COMMIT"]
        assert words.index("call") > words.index("COMMIT")
        assert of.writer.num_commits == num_commits + 2
        assert await of.settled() == ["first", "b"]


async def test_what_turns_of_the_loop_bring_one_after_another_is_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit begins when a turn has brought no more, so that requests which come together wait for one disk."""
    monkeypatch.setattr(group_commit, "GATHER_S", 60.0)
    async with book(tmp_path) as of:
        num_commits = of.writer.num_commits
        waiting = []
        for name in "abcd":
            waiting.append(of.reserve(name))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        assert of.writer.num_commits == num_commits + 1


async def test_what_gathers_is_written_when_the_writer_closes(tmp_path: Path) -> None:
    """Nothing that was handed over is lost because no turn came after it."""
    async with book(tmp_path) as of:
        waiting = of.reserve("late")
        assert await of.writer.close(5)
        assert await waiting is None
        with closing(open_file(tmp_path)) as file:
            assert file.execute("SELECT request_id FROM open_requests").fetchall() == [("late",)]


async def test_nobody_waits_for_turns_that_always_bring_more(tmp_path: Path) -> None:
    """After a bound what has gathered is written, however many follow it."""
    async with book(tmp_path) as of:
        first, rest = of.reserve("first of many"), []
        ends = asyncio.get_running_loop().time() + 5
        while not first.done():
            assert asyncio.get_running_loop().time() < ends
            rest.append(of.reserve(f"{len(rest)}"))
            await asyncio.sleep(0)
        await asyncio.gather(first, *rest)


@pytest.mark.parametrize("error", [ValueError, AttributeError, sqlite3.IntegrityError])
async def test_a_write_that_cannot_be_applied_fails_alone(tmp_path: Path, error: type[Exception]) -> None:
    """It is told why, once; those beside it are durable, and nothing is refused afterwards."""

    def fail(file: sqlite3.Connection) -> None:
        raise error("not this one")

    async with book(tmp_path) as of:
        for name in "abc":
            await of.reserve(name)
        waiting = [of.settle("a"), of.settle("b", also=fail), of.settle("c"), of.checkpoint("b", 3), of.reserve("d")]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [outcomes[at] for at in (0, 2, 3, 4)] == [True, True, None, None]
        assert isinstance(outcomes[1], error)
        assert await of.settled() == ["first", "a", "c"]
        assert of.writer.refusing is None
        assert await of.settle("b") is True


REFUSALS = {
    "SQLITE_FULL": ("max_page_count = {pages}", "max_page_count = 1000000"),
    "SQLITE_READONLY": ("query_only = ON", "query_only = OFF"),
}
"""How SQLite comes to refuse by itself, and takes writes again."""


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_where_the_file_takes_nothing_settlements_wait_and_the_rest_is_refused(
    tmp_path: Path, refusal: str
) -> None:
    """Full or read-only, in one commit; there is nothing of it in the file, and later each settlement once."""
    begins, ends = REFUSALS[refusal]
    async with book(tmp_path) as of:
        for name in "abc":
            await of.reserve(name)
        (pages,) = of.connection.execute("PRAGMA page_count").fetchone()
        of.connection.execute(f"PRAGMA {begins.format(pages=pages)}")
        long = Posting(DONE._replace(request_id="a", metadata="x" * 100_000))
        kept = [of.writer.write(of.writes.post, long, kept=True), of.settle("b")]
        with pytest.raises(StorageUnavailable):
            await of.reserve("d")
        assert of.writer.refusing == refusal
        with pytest.raises(StorageUnavailable):
            of.reserve("e")
        of.connection.execute(f"PRAGMA {ends}")
        assert await asyncio.gather(*kept) == [True, True]
        assert await of.settled() == ["first", "a", "b"]
        assert of.writer.refusing is None


async def test_what_nobody_waits_for_is_durable_in_a_moment_and_at_the_end(tmp_path: Path) -> None:
    """By itself, and where the writer closes before that."""
    async with book(tmp_path) as of:
        for name in "ab":
            await of.reserve(name)
        of.writer.put(of.writes.post, Posting(DONE._replace(request_id="a")), kept=True)
        committed, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell(seconds: float, num_writes: int) -> None:
            loop.call_soon_threadsafe(committed.set)

        of.writer.on_commit = tell
        async with asyncio.timeout(5):
            await committed.wait()
        of.writer.put(of.writes.post, Posting(DONE._replace(request_id="b")), kept=True)
    with sqlite3.connect(tmp_path / FILE_NAME) as file:
        assert [name for (name,) in file.execute("SELECT request_id FROM entries ORDER BY seq")] == ["first", "a", "b"]


async def test_the_log_is_written_back_outside_of_commits(tmp_path: Path) -> None:
    """Once in some thousand writes, so that no commit has to, and the log does not grow for ever."""
    async with book(tmp_path) as of:
        said: list[str] = []
        of.connection.set_trace_callback(said.append)
        for turn in range(4):
            await asyncio.gather(*(of.reserve(f"{turn}-{number}") for number in range(WRITE_BACK_MOST // 2)))
            wanted = (turn + 1) // 2
            await becomes(lambda wanted=wanted: num_written_back(said) >= wanted)  # in a moment without writes
        await of.writer.call(lambda file: of.connection.set_trace_callback(None))
        assert num_written_back(said) == 2


def num_written_back(statements: list[str]) -> int:
    return sum("wal_checkpoint" in statement for statement in statements)


def test_calls_are_a_kind_of_their_own() -> None:
    """The last: a call may read what was written before."""
    writes = LedgerWrites(bytes(32))
    assert max(kind.rank for kind in (writes.reserve, writes.checkpoint, writes.post)) < CALLS.rank
