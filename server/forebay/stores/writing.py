"""Kinds of writes to the data file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


def _nothing() -> None:
    pass


def _no(items: list[Any]) -> bool:
    return False


@dataclass(frozen=True, eq=False, slots=True)
class Writing:
    """A kind of write. Of those that are committed together, each kind is applied by itself, in order of `rank` and
    then of arrival.

    `apply(connection, items)` runs in the writer's thread inside a transaction, and returns a result for each item, or
    None for all. `forget` is called there, too, when such a transaction was rolled back. `is_statement`: whether
    `apply` would write these items with one statement, which alone is a transaction by itself: for each statement,
    BEGIN and COMMIT among them, SQLite lets go of the interpreter's lock, and getting it back from a busy event loop
    takes longer than the disk.
    """

    rank: int
    apply: Callable[[sqlite3.Connection, list[Any]], Sequence[Any] | None]
    forget: Callable[[], None] = _nothing
    is_statement: Callable[[list[Any]], bool] = _no


def _call_each(connection: sqlite3.Connection, calls: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
    """Each in a savepoint: one that fails takes none of the others with it, and its exception is its result."""
    results: list[Any] = []
    for call in calls:
        connection.execute("SAVEPOINT one")
        try:
            results.append(call(connection))
        except (sqlite3.OperationalError, MemoryError):
            raise  # not this call's fault, and everybody's trouble
        except Exception as exc:
            connection.execute("ROLLBACK TO one")
            results.append(exc)
        connection.execute("RELEASE one")
    return results


CALLS = Writing(3, _call_each)
