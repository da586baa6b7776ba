"""Old months leave the ledger whole; their signed heads and the daily totals stay."""

from __future__ import annotations

import sqlite3
import time

from forebay.ledger.chain import segment_of
from forebay.ledger.sink import taken
from forebay.ledger.writes import LedgerWrites, tail

CHUNK = 2_000
"""Rows a transaction, so that nobody's reservation waits long for it."""


def drop_months(
    connection: sqlite3.Connection, *, writes: LedgerWrites, keep_months: int, with_sink: bool = False
) -> bool:
    """Drops the oldest `CHUNK` rows of closed months before the last `keep_months`. True if there is more to drop.

    `with_sink`: a month stays until the sink has taken all of it.
    A head is signed where the dropped rows end, so that the rest can be verified at any time.
    """
    _, _, newest = tail(connection)
    # A clock that is years ahead for a moment must not cost all rows.
    keep_since = months_before(min(newest, segment_of(time.time_ns() // 1_000_000)), keep_months) if newest else ""
    (until,) = connection.execute(
        "SELECT max(seq) FROM heads WHERE closes_segment AND segment < ? AND seq <= ?",
        (keep_since, taken(connection) if with_sink else 1 << 62),
    ).fetchone()
    (first,) = connection.execute("SELECT min(seq) FROM entries").fetchone()
    if until is None or first is None or first > until:
        return False
    last = min(until, first + CHUNK - 1)
    digest, at = connection.execute("SELECT hash, at FROM entries WHERE seq = ?", (last,)).fetchone()
    connection.execute("DELETE FROM heads WHERE NOT closes_segment AND seq < ?", (last,))
    writes.put_head(connection, last, segment_of(at), digest, at, closes_segment=False)
    connection.execute("DELETE FROM entries WHERE seq <= ?", (last,))
    return bool(last < until)


def months_before(segment: str, num_months: int) -> str:
    """The month so many before: `months_before("2026-02", 3)` is `2025-11`."""
    year, month = map(int, segment.split("-"))
    year, month = divmod(year * 12 + month - 1 - num_months, 12)
    return f"{year:04d}-{month + 1:02d}"
