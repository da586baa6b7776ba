"""Old months leave the ledger whole, and not before others have what they want of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from forebay.ledger.retention import CHUNK, drop_months
from forebay.ledger.sink import CURSOR
from forebay.ledger.verify import verify
from forebay.ledger.writes import LedgerWrites
from forebay.stores.secret import read_or_create_secret
from forebay.stores.sqlite import open_file
from support.past import settled, write_past

DAY_MS = 86_400_000
WRITES = LedgerWrites(bytes(32))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Four requests of a hundred and ten days ago, three of seventy, two of now."""
    now = time.time_ns() // 1_000_000
    write_past(tmp_path, [settled(now - days * DAY_MS) for days in (110, 110, 110, 110, 70, 70, 70, 0, 0)])
    with closing(open_file(tmp_path)) as connection:
        yield connection


def num_rows(file: sqlite3.Connection) -> int:
    return int(file.execute("SELECT count(*) FROM entries WHERE kind = 'settle'").fetchone()[0])


def test_months_are_dropped_whole(file: sqlite3.Connection) -> None:
    """All before the last whole month that is kept."""
    assert drop_months(file, writes=WRITES, keep_months=1) is False
    assert num_rows(file) == 2


def test_the_ledger_is_whole_between_two_chunks(tmp_path: Path) -> None:
    """Dropping a large month takes several transactions, and the process may end after any of them."""
    now = time.time_ns() // 1_000_000
    write_past(tmp_path, [settled(now - days * DAY_MS) for days in [110] * (CHUNK + 1) + [0]])
    with closing(open_file(tmp_path)) as file:
        secret = read_or_create_secret(tmp_path)
        writes = LedgerWrites(secret)
        assert verify(file, secret) == []
        assert drop_months(file, writes=writes, keep_months=1) is True
        assert num_rows(file) == 2
        assert verify(file, secret) == []
        assert drop_months(file, writes=writes, keep_months=1) is False
        assert num_rows(file) == 1
        assert verify(file, secret) == []


def test_what_the_sink_has_not_taken_stays(file: sqlite3.Connection) -> None:
    """A month goes once PostgreSQL has its last row; one row less keeps it all."""
    (last,) = file.execute("SELECT seq FROM heads ORDER BY seq LIMIT 1").fetchone()
    for cursor, left in ((None, 9), (last - 1, 9), (last, 5), (last + 1, 5), (1000, 2)):
        if cursor is not None:
            file.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (CURSOR, cursor))
        assert drop_months(file, writes=WRITES, keep_months=1, with_sink=True) is False
        assert num_rows(file) == left
