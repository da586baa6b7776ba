"""The cache's own data file: its tables, and the statements on them. Blocking: for threads."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from forebay.cache.entries import Sealed
from forebay.stores.sqlite import prepare_folder, write_ahead

FILE_NAME = "cache.sqlite3"
SET_ASIDE = "cache.sqlite3.broken"
VERSION = 2
BUSY_S = 5.0
VACUUM_PAGES = 2000
MAX_TOLD = 1000
"""Purges that are remembered for the file's server, whose memory they are to leave, too."""

_COLUMNS = "id, scope, tenant, model, epoch, created_at, expires_at, embedding, body"
_TYPED = (
    "CAST(id AS TEXT), CAST(scope AS TEXT), CAST(tenant AS TEXT), CAST(model AS TEXT), CAST(epoch AS INTEGER),"
    " CAST(created_at AS INTEGER), CAST(expires_at AS INTEGER), CAST(embedding AS BLOB), CAST(body AS BLOB)"
)
"""SQLite lets a column hold anything; whoever writes to the file may have put anything there."""
_SCHEMA = f"""
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    num_bytes INTEGER NOT NULL,
    embedding BLOB,
    body BLOB NOT NULL
);
CREATE INDEX entries_scope ON entries (scope, used_at) WHERE embedding IS NOT NULL;
CREATE INDEX entries_tenant ON entries (tenant, used_at, num_bytes);
CREATE INDEX entries_expiry ON entries (expires_at);
CREATE TABLE purges (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    purge TEXT NOT NULL
);
PRAGMA user_version = {VERSION};
"""

_DROP = "DROP TABLE IF EXISTS entries; DROP TABLE IF EXISTS purges;"


def open_cache_file(folder: Path) -> sqlite3.Connection:
    """Made where it is missing. Of another version it is emptied: it holds nothing that cannot be made again.

    Raises sqlite3.Error, sqlite3.DatabaseError for one that is broken, and OSError.
    """
    prepare_folder(folder)
    path = folder / FILE_NAME
    # SQLite gives the files beside it the same mode. One that is there is not opened: to close it would drop the locks
    # of this process's connections to it (sqlite.org/howtocorrupt.html, 2.2).
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    # What is no UTF-8 is not ours either: its seal tells, where an error would count against the store.
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        # Space that is freed is given back a piece at a time; before the first table, or it is too late.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        # In a transaction: another thread may be about to make the tables, too.
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            for statement in (_DROP + _SCHEMA).split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def set_aside(folder: Path) -> None:
    """In place of the one that was set aside before. What belongs to the file goes with it."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(folder / (FILE_NAME + suffix), folder / (SET_ASIDE + suffix))


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, not the disk or another process."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def read_entries(connection: sqlite3.Connection, ids: Iterable[str], now: int) -> dict[str, Sealed]:
    """Those of them that are there and have not expired."""
    found = {}
    for entry_id in ids:
        row = connection.execute(
            f"SELECT {_TYPED} FROM entries WHERE id = ? AND expires_at > ?",  # noqa: S608
            (entry_id, now),
        ).fetchone()
        if row is not None:
            found[entry_id] = Sealed(*row)
    return found


def all_ids(connection: sqlite3.Connection) -> Iterator[str]:
    return (entry_id for (entry_id,) in connection.execute("SELECT id FROM entries"))


def read_embeddings(connection: sqlite3.Connection, scope: str, now: int, limit: int) -> list[tuple[str, bytes]]:
    """Of a scope, the most recently used first."""
    return connection.execute(
        "SELECT id, embedding FROM entries WHERE scope = ? AND embedding IS NOT NULL AND expires_at > ?"
        " ORDER BY used_at DESC LIMIT ?",
        (scope, now, limit),
    ).fetchall()


def insert(connection: sqlite3.Connection, entry: Sealed, now: int) -> None:
    columns = (entry.id, entry.scope, entry.tenant, entry.model, entry.epoch, entry.created_at, entry.expires_at)
    connection.execute(
        f"INSERT INTO entries ({_COLUMNS}, used_at, num_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (*columns, entry.embedding, entry.body, now, entry.num_bytes),
    )


def touch(connection: sqlite3.Connection, entry_id: str, now: int, every_ms: int) -> None:
    connection.execute("UPDATE entries SET used_at = ? WHERE id = ? AND used_at < ?", (now, entry_id, now - every_ms))


def probe(connection: sqlite3.Connection) -> None:
    """Writes something: a transaction that writes nothing proves nothing."""
    connection.execute(f"PRAGMA user_version = {VERSION}")


def give_back_space(connection: sqlite3.Connection) -> None:
    """Some of what was freed."""
    # `execute` would take one step of it, which is one page.
    connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")


def tell(connection: sqlite3.Connection, purge: str) -> None:
    """To whoever uses the file."""
    number = connection.execute("INSERT INTO purges (purge) VALUES (?)", (purge,)).lastrowid or 0
    connection.execute("DELETE FROM purges WHERE number <= ?", (number - MAX_TOLD,))


def told_after(connection: sqlite3.Connection, number: int | None) -> tuple[int, list[str]]:
    """The last purge's number, and the purges after this one; without one none."""
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM purges").fetchone()
    if number is None or last == number:
        return last, []
    rows = connection.execute("SELECT purge FROM purges WHERE number > ? ORDER BY number", (number,)).fetchall()
    return last, [purge for (purge,) in rows]


def sums(connection: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Tenant, entries, bytes."""
    return connection.execute("SELECT tenant, COUNT(*), SUM(num_bytes) FROM entries GROUP BY tenant").fetchall()


@dataclass(frozen=True, slots=True)
class Gone:
    """What is known of an entry that was deleted."""

    id: str
    scope: str
    tenant: str
    num_bytes: int


def delete(connection: sqlite3.Connection, where: str, parameters: Mapping[str, object]) -> list[Gone]:
    """`where`: a condition of ours, its values as named parameters."""
    rows = connection.execute(
        f"DELETE FROM entries WHERE {where} RETURNING id, scope, tenant, num_bytes",  # noqa: S608
        parameters,
    ).fetchall()
    return [Gone(*row) for row in rows]


BY_ID = "id = :id"
EXPIRED = "expires_at <= :now"
PURGED = (
    "(:tenant IS NULL OR tenant = :tenant) AND (:model IS NULL OR model = :model)"
    " AND (:epoch IS NULL OR epoch < :epoch)"
)
OLDEST_OF_TENANT = "number = (SELECT number FROM entries WHERE tenant = :tenant ORDER BY used_at LIMIT 1)"
