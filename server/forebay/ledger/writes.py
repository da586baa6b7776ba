"""How rows get into the ledger's tables: appended to the chain, many in one statement, once each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from forebay.ledger.chain import GENESIS, link, segment_of, sign
from forebay.ledger.rows import Entry, day_of
from forebay.stores.group_commit import Writing

CHUNKS = (128, 64, 32, 16, 8, 4, 2, 1)
"""Rows a statement: few sizes, so that each is prepared once; SQLite lets go of the interpreter's lock once for each."""

ADD_TO_TOTALS = """
INSERT INTO daily_totals (day, tenant, key_id, num_requests, num_tokens, cost) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (day, tenant, key_id) DO UPDATE SET
    num_requests = num_requests + excluded.num_requests,
    num_tokens = num_tokens + excluded.num_tokens,
    cost = cost + excluded.cost
"""

Settlement = tuple[Entry, Entry | None]
"""What the client is billed, and what the engine did beyond that."""

Tail = tuple[int, bytes, str]

Also = Callable[[sqlite3.Connection], None]
"""What else is to be true once a settlement is, and not before."""


class LedgerWrites:
    """The kinds of write. `reserve` takes an Entry, `checkpoint` (request id, completion tokens), `settle` a
    Settlement, `settle_with` (Settlement, Also); each settlement's result says whether it was the one that counted."""

    def __init__(self, secret: bytes) -> None:
        """`secret` signs heads."""
        self._secret = secret
        self._tail: Tail | None = None
        """As the open transaction has it, or the last one that was committed; None: to be read."""
        self.reserve = Writing(0, self._reserve, self._forget)
        self.checkpoint = Writing(1, self._checkpoint)
        self.settle = Writing(2, self._settle, self._forget)
        self.settle_with = Writing(2, self._settle_with, self._forget)

    def _forget(self) -> None:
        self._tail = None

    def _reserve(self, connection: sqlite3.Connection, entries: list[Entry]) -> None:
        self._append(connection, entries)
        _insert(connection, "INSERT INTO open_requests VALUES", [(entry.request_id, 0) for entry in entries])

    def _checkpoint(self, connection: sqlite3.Connection, checkpoints: list[tuple[str, int]]) -> None:
        for chunk in _chunks(checkpoints):
            values = ",".join(["(?,?)"] * len(chunk))
            connection.execute(
                f"WITH new(id, tokens) AS (VALUES {values}) "  # noqa: S608 - placeholders only
                "UPDATE open_requests SET completion_tokens = new.tokens FROM new WHERE request_id = new.id",
                [value for checkpoint in chunk for value in checkpoint],
            )

    def _settle(self, connection: sqlite3.Connection, settlements: list[Settlement]) -> list[bool]:
        """Only what is open can be settled, which makes a settlement that comes twice count once."""
        by_id: dict[str, Settlement] = {}
        for settlement in settlements:
            by_id.setdefault(settlement[0].request_id, settlement)
        closed: set[str] = set()
        for chunk in _chunks(list(by_id)):
            places = ",".join("?" * len(chunk))
            closed.update(
                request_id
                for (request_id,) in connection.execute(
                    f"DELETE FROM open_requests WHERE request_id IN ({places}) RETURNING request_id",  # noqa: S608
                    chunk,
                )
            )
        counted = [settlement for request_id, settlement in by_id.items() if request_id in closed]
        self._append(connection, [row for settlement in counted for row in settlement if row is not None])
        _add_to_totals(connection, [settle for settle, _ in counted])
        results = []
        for settle, _ in settlements:
            results.append(settle.request_id in closed)
            closed.discard(settle.request_id)
        return results

    def _settle_with(self, connection: sqlite3.Connection, items: list[tuple[Settlement, Also]]) -> list[bool]:
        counted = self._settle(connection, [settlement for settlement, _ in items])
        for (_, also), counts in zip(items, counted, strict=True):
            if counts:
                also(connection)
        return counted

    def _append(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> None:
        seq, head, segment = self._tail or tail(connection)
        rows = []
        for entry in entries:
            # By the order of rows, not by a clock that may be set back.
            if (month := segment_of(entry.at)) > segment:
                if segment:
                    self.put_head(connection, seq, segment, head, entry.at, closes_segment=True)
                segment = month
            seq += 1
            head = link(head, seq, entry)
            rows.append((seq, *entry, head))
        _insert(connection, "INSERT INTO entries VALUES", rows)
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


def _add_to_totals(connection: sqlite3.Connection, settled: Iterable[Entry]) -> None:
    totals: dict[tuple[int, str, str], list[int]] = {}
    for entry in settled:
        total = totals.setdefault((day_of(entry.reserved_at), entry.tenant, entry.key_id), [0, 0, 0])
        total[0] += 1
        total[1] += entry.prompt_tokens + entry.completion_tokens
        total[2] += entry.cost if entry.price_version is not None else 0  # else it is no money
    for key, total in totals.items():
        connection.execute(ADD_TO_TOTALS, (*key, *total))


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]]) -> None:
    for chunk in _chunks(rows):
        row = f"({','.join('?' * len(chunk[0]))})"
        connection.execute(f"{into} {','.join([row] * len(chunk))}", [value for values in chunk for value in values])


def _chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in CHUNKS:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size
