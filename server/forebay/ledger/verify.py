"""Whether a ledger is whole: nothing missing, nothing changed, nothing twice, every sum as its rows say."""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from forebay.ledger.chain import GENESIS, link, sign
from forebay.ledger.rows import DAY_MS, Entry, entry_of

MAX_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain stood after row `seq`, signed."""

    seq: int
    segment: str
    at: int
    closes_segment: bool
    hash: bytes
    signature: bytes


Row = tuple[int, Entry, bytes]
"""Its number, its columns, its hash."""


def read_rows(connection: sqlite3.Connection) -> Iterator[Row]:
    for seq, *columns, digest in connection.execute("SELECT * FROM entries ORDER BY seq"):
        yield seq, entry_of(columns), digest


def read_heads(connection: sqlite3.Connection) -> list[Head]:
    columns = "seq, segment, at, closes_segment, hash, signature"
    return [
        Head(seq, segment, at, bool(closes), digest, signature)
        for seq, segment, at, closes, digest, signature in connection.execute(
            f"SELECT {columns} FROM heads ORDER BY seq"  # noqa: S608 - column names of ours
        )
    ]


def verify(connection: sqlite3.Connection, secret: bytes) -> list[str]:
    """What is wrong, in sentences, the first `MAX_FAULTS`; nothing if the ledger is whole.

    Reads all of it and computes every hash, signature and sum anew. Call it inside a transaction.
    """
    (first,) = connection.execute("SELECT min(seq) FROM entries").fetchone()
    complete = first in (None, 1) and not (first is None and read_heads(connection))

    def faults() -> Iterator[str]:
        yield from check_chain(read_rows(connection), read_heads(connection), secret)
        yield from _check_requests(connection)
        yield from _check_totals(connection, complete=complete)

    return list(islice(faults(), MAX_FAULTS))


def check_chain(rows: Iterable[Row], heads: Iterable[Head], secret: bytes | None) -> Iterator[str]:
    """Whether each hash follows from its row and from the hash before, and whether the heads say the same.

    The rows may begin after a head: what is older was dropped. Without the secret signatures are not checked.
    """
    digests = {}
    dropped_until = 0
    for head in heads:
        digests[head.seq] = head.hash
        if head.closes_segment:
            dropped_until = head.seq
        expected = None if secret is None else sign(secret, head.segment, head.seq, head.hash)
        if expected is not None and not hmac.compare_digest(expected, head.signature):
            yield f"The head after row {head.seq} is not signed with this installation's secret."
    last: int | None = None
    previous = GENESIS
    for seq, entry, digest in rows:
        if last is None:
            last = seq - 1
            previous = digests.get(last, GENESIS)
            if last and last not in digests:
                yield f"Rows up to {last} are missing, and no head says where they ended."
        if seq != last + 1:
            yield f"Row {last + 1} is missing: row {seq} follows row {last}."
        if link(previous, seq, entry) != digest:
            yield f"Row {seq} is not what was written: its hash does not follow from it and the row before."
        if digests.get(seq, digest) != digest:
            yield f"Row {seq} is not the one after which a head was signed."
        last, previous = seq, digest
    newest = max(digests, default=0)
    if last is None:
        last = dropped_until  # all months that there were may have been dropped, but no part of one
    if newest > last:
        yield f"Rows {last + 1} to {newest} are missing: a head was signed after them."


def _check_requests(connection: sqlite3.Connection) -> Iterator[str]:
    """Each request is open or settled, never both, and within what was reserved."""
    checks = [
        (
            "is open and has a settlement",
            "SELECT request_id FROM open_requests JOIN entries USING (request_id) WHERE kind = 'settle'",
        ),
        (
            "was billed more than was reserved",
            "SELECT request_id FROM entries WHERE kind = 'settle' AND (prompt_tokens + completion_tokens > "
            "reserved_tokens OR price_version IS NOT NULL AND cost > reserved_cost)",
        ),
    ]
    for what, query in checks:
        for (request_id,) in connection.execute(query):
            yield f"Request {request_id} {what}."


def _check_totals(connection: sqlite3.Connection, *, complete: bool) -> Iterator[str]:
    """For all days, or where months were dropped for those that began after the oldest row."""
    (oldest,) = connection.execute("SELECT min(reserved_at) FROM entries").fetchone()
    since = 0 if complete else (oldest or 0) // DAY_MS + 1
    derived = f"""
        SELECT reserved_at / {DAY_MS} AS day, tenant, key_id,
            count(*), sum(prompt_tokens + completion_tokens),
            sum(CASE WHEN price_version IS NULL THEN 0 ELSE cost END)
        FROM entries WHERE kind = 'settle' GROUP BY 1, 2, 3
    """  # noqa: S608 - a number of ours
    stored = "SELECT day, tenant, key_id, num_requests, num_tokens, cost FROM daily_totals"
    for left, right in ((derived, stored), (stored, derived)):
        for day, tenant, key_id, *_ in connection.execute(
            f"SELECT * FROM ({left}) WHERE day >= ? EXCEPT SELECT * FROM ({right})",  # noqa: S608 - as above
            (since,),
        ):
            yield f"The total of key {key_id} of tenant {tenant} on day {day} is not the sum of its rows."
