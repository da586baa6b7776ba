"""Answers that are kept for those who ask again: in the data file, with an index in memory, within bounds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import orjson

from forebay.errors import AnswerNotStored
from forebay.failpoints import failpoint
from forebay.idempotency.recording import Head
from forebay.stores.database import Database
from forebay.stores.sqlite import open_for_reading
from forebay.stores.writing import CALLS

CLEAN_EVERY_S = 5.0
CHUNK = 256
"""Rows that one write takes away, so that nobody's reservation waits long for it."""

NOT_STORED = "This key's request was answered and billed, but the answer is not kept: it was too large, or others were \
kept in its place. Use another key to ask again."


class Kept(NamedTuple):
    """A key that was answered. `id` and `fingerprint` are digests, `expires_at` is in Unix milliseconds.

    `num_bytes` 0: the answer was too large, or had to make room for others.
    """

    id: bytes
    tenant: str
    fingerprint: bytes
    request_id: str
    model: str
    expires_at: int
    num_bytes: int


class Shelf:
    """What is kept of one tenant, the oldest first."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Kept] = {}
        self.answers: dict[bytes, int] = {}
        self.num_bytes = 0


class Answers:
    """`begin` after the file is open; then it lives on the event loop, and writes go through the file's writer.

    Where bytes run out, the oldest answers of the tenant that holds the most are given up, and their keys stay known as
    answered; where the number of keys does, the oldest keys of the tenant that holds the most are forgotten.
    """

    def __init__(self, database: Database, *, ttl_s: float, max_total_bytes: int, max_keys: int) -> None:
        self._database = database
        self._ttl_ms = round(ttl_s * 1000)
        self._max_total_bytes = max_total_bytes
        self._max_keys = max_keys
        self._shelves: dict[str, Shelf] = {}
        self._keys: dict[bytes, Kept] = {}
        self._num_bytes = 0
        self._clean_due = 0.0

    def begin(self) -> None:
        with closing(open_for_reading(self._database.folder)) as connection:
            for row in connection.execute(
                "SELECT id, tenant, fingerprint, request_id, model, expires_at, ifnull(length(body), 0) "
                "FROM idempotent_answers ORDER BY expires_at"
            ):
                self._take_in(Kept(*row))

    def find(self, key_id: bytes) -> Kept | None:
        kept = self._keys.get(key_id)
        return None if kept is None or kept.expires_at <= _now() else kept

    async def read(self, kept: Kept) -> tuple[Head, bytes]:
        """Raises `AnswerNotStored`, `StorageUnavailable`."""
        row = await self._database.read(partial(_read, key_id=kept.id, request_id=kept.request_id))
        if row is None:
            raise AnswerNotStored(NOT_STORED)
        return row

    def expiry(self) -> int:
        """Of what is answered now."""
        return _now() + self._ttl_ms

    def add(self, kept: Kept, head: Head, body: bytes | None) -> Callable[[sqlite3.Connection], None]:
        """Takes in an answer, None being one too large; what is returned writes it."""
        if (expired := self._keys.get(kept.id)) is not None:
            self._forget(expired)
        self._take_in(kept)
        given_up: list[Kept] = []
        forgotten: list[Kept] = []
        while self._num_bytes > self._max_total_bytes and len(given_up) < CHUNK:
            shelf = max(self._shelves.values(), key=lambda shelf: shelf.num_bytes)
            oldest = shelf.keys[next(iter(shelf.answers))]
            self._give_up(shelf, oldest)
            given_up.append(oldest)
        while len(self._keys) > self._max_keys and len(forgotten) < CHUNK:
            shelf = max(self._shelves.values(), key=lambda shelf: len(shelf.keys))
            oldest = next(iter(shelf.keys.values()))
            self._forget(oldest)
            forgotten.append(oldest)
        return partial(_write, kept=kept, head=head, body=body, given_up=given_up, forgotten=forgotten)

    def _take_in(self, kept: Kept) -> None:
        shelf = self._shelves.setdefault(kept.tenant, Shelf())
        self._keys[kept.id] = shelf.keys[kept.id] = kept
        if kept.num_bytes:
            shelf.answers[kept.id] = kept.num_bytes
            shelf.num_bytes += kept.num_bytes
            self._num_bytes += kept.num_bytes

    def _give_up(self, shelf: Shelf, kept: Kept) -> None:
        num_bytes = shelf.answers.pop(kept.id, 0)
        shelf.num_bytes -= num_bytes
        self._num_bytes -= num_bytes

    def _forget(self, kept: Kept) -> None:
        shelf = self._shelves[kept.tenant]
        self._give_up(shelf, kept)
        del self._keys[kept.id], shelf.keys[kept.id]
        if not shelf.keys:
            del self._shelves[kept.tenant]

    def tick(self) -> None:
        """Called every second: forgets what has expired, a little at a time."""
        now = time.monotonic()
        if now < self._clean_due or self._database.writer.refusing is not None:
            return
        expired = [kept for shelf in self._shelves.values() for kept in _expired(shelf)][:CHUNK]
        if len(expired) < CHUNK:
            self._clean_due = now + CLEAN_EVERY_S
        if expired:
            for kept in expired:
                self._forget(kept)
            self._database.writer.put(CALLS, partial(_delete, forgotten=expired))


def _expired(shelf: Shelf) -> Iterable[Kept]:
    now = _now()
    for kept in shelf.keys.values():
        if kept.expires_at > now:
            return
        yield kept


def _now() -> int:
    return time.time_ns() // 1_000_000


def _read(connection: sqlite3.Connection, *, key_id: bytes, request_id: str) -> tuple[Head, bytes] | None:
    row = connection.execute(
        "SELECT status, headers, body FROM idempotent_answers WHERE id = ? AND request_id = ?", (key_id, request_id)
    ).fetchone()
    if row is None or row[2] is None:
        return None
    status, headers, body = row
    pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in orjson.loads(headers))
    return Head(status, pairs), body


def _write(
    connection: sqlite3.Connection,
    *,
    kept: Kept,
    head: Head,
    body: bytes | None,
    given_up: Sequence[Kept],
    forgotten: Sequence[Kept],
) -> None:
    headers = orjson.dumps([(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers]).decode()
    connection.execute(
        "INSERT OR REPLACE INTO idempotent_answers (id, tenant, fingerprint, request_id, model, expires_at, "
        "status, headers, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*kept[:-1], head.status, headers, body),
    )
    connection.executemany(
        "UPDATE idempotent_answers SET body = NULL WHERE id = ? AND request_id = ?",
        [(kept.id, kept.request_id) for kept in given_up],
    )
    _delete(connection, forgotten=forgotten)
    failpoint("writing_answer")


def _delete(connection: sqlite3.Connection, *, forgotten: Sequence[Kept]) -> None:
    """By request too: the key may have been used anew in the same commit."""
    connection.executemany(
        "DELETE FROM idempotent_answers WHERE id = ? AND request_id = ?",
        [(kept.id, kept.request_id) for kept in forgotten],
    )
