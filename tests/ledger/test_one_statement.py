"""A commit of ledger rows is one statement where it can be, and a transaction of several where it must."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from forebay.ledger.rows import DAY_MS, Entry
from forebay.ledger.writes import MAX_ROWS, LedgerWrites, Posting
from forebay.stores.group_commit import GroupCommit
from forebay.stores.sqlite import open_file

AT = 20_000 * DAY_MS
EMPTY = dict.fromkeys(Entry._fields)


def reservation(number: int, at: int = AT) -> Posting:
    texts = {"tenant": "default", "key_id": "key", "model": "m", "route": "/generate", "outcome": "open"}
    numbers = dict.fromkeys(
        ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost", "streamed", "recovered"), 0
    )
    given = {"request_id": f"{number:032x}", "kind": "reserve", "at": at, "reserved_at": at}
    return Posting(Entry(**{**EMPTY, **texts, **numbers, **given}))


async def test_rows_are_one_statement(tmp_path: Path) -> None:
    """Without BEGIN and COMMIT, of which each would wait for the interpreter's lock. A new month's head, what is to be
    true together with a settlement, and more rows than a statement has, are committed with their rows or not at all."""
    connection = open_file(tmp_path)
    writer, writes = GroupCommit(connection), LedgerWrites(bytes(32))
    said: list[str] = []

    async def statements(*postings: Posting) -> list[str]:
        said.clear()
        waiting = [writer.write(writes.post, posting) for posting in postings]
        for outcome in waiting:
            assert await outcome
        return [words.split()[0] for words, _ in groupby(said)]  # traced anew for each trigger

    await statements(reservation(0))  # reads where the chain stands
    connection.set_trace_callback(said.append)
    assert await statements(reservation(1), reservation(2)) == ["INSERT"]
    assert (await statements(reservation(3, AT + 31 * DAY_MS)))[:1] == ["BEGIN"]
    also = reservation(4)._replace(also=lambda connection: connection.execute("SELECT 1"))
    assert (await statements(also))[:1] == ["BEGIN"]
    many = [reservation(number) for number in range(5, 6 + MAX_ROWS)]
    assert await statements(*many) == ["BEGIN", "INSERT", "INSERT", "COMMIT"]
    assert await writer.close(5)
