"""A commit of ledger rows is one statement where it can be, and a transaction of several where it must."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from forebay.ledger.rows import DAY_MS, EngineUse, Reservation
from forebay.ledger.writes import MAX_ROWS, LedgerWrites, Posting
from forebay.stores.group_commit import GroupCommit
from forebay.stores.sqlite import open_file
from forebay.stores.writing import Writing
from forebay.types import Usage

AT = 20_000 * DAY_MS
HELD = Reservation(
    "", AT, "default", "key", None, "m", None, "/generate", False, 1, 1, 1, None, None, None, None, None, None
)
DONE = HELD.settled(AT, "complete", "stop", Usage(1, 1), 1, None, EngineUse())


def named(number: int) -> str:
    return f"{number:032x}"


def settlement(number: int, at: int = AT) -> Posting:
    return Posting(DONE._replace(request_id=named(number), at=at))


async def test_rows_are_one_statement(tmp_path: Path) -> None:
    """Without BEGIN and COMMIT, of which each would wait for the interpreter's lock. A new month's head, what is to be
    true together with a settlement, and more rows than a statement has, are committed with their rows or not at all."""
    connection = open_file(tmp_path)
    writer, writes = GroupCommit(connection), LedgerWrites(bytes(32))
    said: list[str] = []

    async def statements(kind: Writing, *items: Any) -> list[str]:
        said.clear()
        waiting = [writer.write(kind, item) for item in items]
        for outcome in waiting:
            assert await outcome is not False
        return [words.split()[0] for words, _ in groupby(said)]  # traced anew for each trigger

    numbers = range(MAX_ROWS + 8)
    reservations = [(HELD._replace(request_id=named(number)), 0) for number in numbers]
    await statements(writes.reserve, reservations[0])
    await statements(writes.post, settlement(0))  # reads where the chain stands
    connection.set_trace_callback(said.append)
    assert await statements(writes.reserve, *reservations[1:8]) == ["INSERT"]
    assert await statements(writes.reserve, *reservations[8:]) == ["INSERT"]
    assert await statements(writes.checkpoint, (named(1), 5), (named(2), 7)) == ["WITH"]
    assert await statements(writes.post, settlement(1), settlement(2)) == ["INSERT"]
    assert (await statements(writes.post, settlement(3, AT + 31 * DAY_MS)))[:1] == ["BEGIN"]
    also = settlement(4)._replace(also=lambda connection: connection.execute("SELECT 1"))
    assert (await statements(writes.post, also))[:1] == ["BEGIN"]
    many = [settlement(number) for number in numbers[5:]]
    assert await statements(writes.post, *many) == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    assert await writer.close(5)
