"""How rows get into the ledger's tables: reserved, then appended to the chain, many in one statement, once each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_type_hints

import orjson

from forebay.ledger.chain import GENESIS, link, segment_of, sign
from forebay.ledger.rows import COLUMNS, Entry, Reservation
from forebay.stores.writing import Writing

MAX_ROWS = 64
"""Rows a statement. Each number of them is a statement of its own, prepared once; for each statement SQLite lets go of
the interpreter's lock, and getting it back from a busy event loop takes longer than the statement."""

NULL = -0.5
"""Stands for None, which the sqlite3 module takes four times as long to bind. No column holds it: they hold whole
numbers and texts."""

_KINDS = get_type_hints(Entry).values()
PLACES = ["?", *(f"nullif(?, {NULL})" if type(None) in get_args(kind) else "?" for kind in _KINDS), "?"]
"""Of one row's values in a statement."""

Also = Callable[[sqlite3.Connection], None]
"""What else is to be true once a settlement is, and not before."""


class Posting(NamedTuple):
    """What is added to the ledger together: a settlement, and the row of what nobody is charged for."""

    row: Entry
    uncharged: Entry | None = None
    also: Also | None = None


Tail = tuple[int, bytes, str]


class LedgerWrites:
    """The three kinds of write. `reserve` takes a Reservation and the completion tokens of a first checkpoint,
    `checkpoint` (request id, completion tokens), `post` a Posting; its result says whether it counted."""

    def __init__(self, secret: bytes) -> None:
        """`secret` signs heads."""
        self._secret = secret
        self._tail: Tail | None = None
        self._open: set[str] | None = None
        """As the open transaction has them, or the last one that was committed; None: to be read."""
        self.reserve = Writing(0, self._reserve, self._forget, self._is_one_chunk)
        self.checkpoint = Writing(1, self._checkpoint, is_statement=lambda checkpoints: len(checkpoints) <= MAX_ROWS)
        self.post = Writing(2, self._post, self._forget, self._is_statement)

    def _forget(self) -> None:
        self._tail = self._open = None

    def _is_one_chunk(self, reserved: list[tuple[Reservation, int]]) -> bool:
        return self._open is not None and len(reserved) <= MAX_ROWS

    def _is_statement(self, postings: list[Posting]) -> bool:
        """Few enough rows, nothing to be read before, no month to be closed, nothing else to be written."""
        if self._tail is None or self._open is None or len(postings) > MAX_ROWS // 2:
            return False
        segment = self._tail[2]
        return all(row.also is None and segment_of(row.row.at) <= segment for row in postings)

    def _post(self, connection: sqlite3.Connection, postings: list[Posting]) -> list[bool]:
        """Only what is open can be settled, which makes a settlement that comes twice count once.

        A trigger (stores/schema.py) keeps `open_requests` and `daily_totals` in step with the rows.
        """
        still_open = self._still_open(connection)
        rows: list[Entry] = []
        counted = []
        for row, uncharged, _ in postings:
            if row.request_id in still_open:
                still_open.remove(row.request_id)
            else:
                counted.append(False)
                continue
            counted.append(True)
            rows.append(row)
            if uncharged is not None:
                rows.append(uncharged)
        self._append(connection, rows)
        for posting, counts in zip(postings, counted, strict=True):
            if counts and posting.also is not None:
                posting.also(connection)
        return counted

    def _still_open(self, connection: sqlite3.Connection) -> set[str]:
        if self._open is None:
            self._open = {request_id for (request_id,) in connection.execute("SELECT request_id FROM open_requests")}
        return self._open

    def _reserve(self, connection: sqlite3.Connection, reserved: list[tuple[Reservation, int]]) -> None:
        self._still_open(connection).update([reservation.request_id for reservation, _ in reserved])
        for chunk in _chunks(reserved):
            values: list[Any] = []
            for reservation, num_tokens in chunk:
                values += (reservation.request_id, orjson.dumps(tuple(reservation)).decode(), num_tokens)
            places = _places(len(chunk), 3)
            connection.execute(f"INSERT INTO open_requests VALUES {places}", values)  # noqa: S608 - placeholders only

    def _checkpoint(self, connection: sqlite3.Connection, checkpoints: list[tuple[str, int]]) -> None:
        for chunk in _chunks(checkpoints):
            connection.execute(
                f"WITH new(id, tokens) AS (VALUES {_places(len(chunk), 2)}) "  # noqa: S608 - placeholders only
                "UPDATE open_requests SET completion_tokens = new.tokens FROM new WHERE request_id = new.id",
                [value for checkpoint in chunk for value in checkpoint],
            )

    def _append(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        seq, head, segment = self._tail or tail(connection)
        values: list[Any] = []
        for entry in entries:
            # By the order of rows, not by a clock that may be set back.
            if (month := segment_of(entry.at)) > segment:
                if segment:
                    self.put_head(connection, seq, segment, head, entry.at, closes_segment=True)
                segment = month
            seq += 1
            head = link(head, seq, entry)
            values.append(seq)
            values += [NULL if value is None else value for value in entry]
            values.append(head)
        width = len(COLUMNS)
        for chunk in _chunks(values, MAX_ROWS * width):
            connection.execute(_insertion(len(chunk) // width), chunk)
        self._tail = seq, head, segment

    def put_head(
        self, connection: sqlite3.Connection, seq: int, segment: str, head: bytes, at: int, *, closes_segment: bool
    ) -> None:
        """Signs where the chain stands after row `seq`. The head that closes a segment replaces its earlier ones."""
        if closes_segment:
            connection.execute("DELETE FROM heads WHERE segment = ? AND NOT closes_segment", (segment,))
        connection.execute(
            "INSERT INTO heads (seq, segment, at, closes_segment, hash, signature) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (seq) DO NOTHING",
            (seq, segment, at, closes_segment, head, sign(self._secret, segment, seq, head)),
        )


def tail(connection: sqlite3.Connection) -> Tail:
    """The last row's number and hash, and the segment it is in; 0, `GENESIS` and "" where there never was one."""
    last_head = connection.execute("SELECT seq, hash, segment FROM heads ORDER BY seq DESC LIMIT 1").fetchone()
    last_row = connection.execute("SELECT seq, hash, at FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    if last_row is None:
        return last_head or (0, GENESIS, "")
    seq, head, at = last_row
    segment = segment_of(at)
    return seq, head, max(segment, last_head[2]) if last_head else segment


@lru_cache(maxsize=MAX_ROWS)
def _insertion(num_rows: int) -> str:
    row = f"({','.join(PLACES)})"
    return f"INSERT INTO entries VALUES {','.join([row] * num_rows)}"  # noqa: S608 - placeholders only


@lru_cache(maxsize=2 * MAX_ROWS)
def _places(num_rows: int, num_columns: int) -> str:
    return ",".join([f"({','.join('?' * num_columns)})"] * num_rows)


def _chunks(items: Sequence[Any], size: int = MAX_ROWS) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
