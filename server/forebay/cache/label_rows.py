"""What labels have shown, in the data file: a row for each owner of answers, a tenant or a group of tenants."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

State = Mapping[str, Any]
"""See `Assurance.export`."""


class LabelRow(NamedTuple):
    """`num_imports`: how often the state came from elsewhere; a server that knows of fewer has an older one.
    `state` None: forgotten."""

    owner: str
    num_imports: int
    state: State | None


def read_labels(connection: sqlite3.Connection, beyond: Mapping[str, int] | None = None) -> list[LabelRow]:
    """All, or those that were imported since `beyond` was read: owners and their `num_imports`."""
    known = beyond or {}
    rows = connection.execute("SELECT owner, num_imports FROM cache_labels").fetchall()
    newer = [owner for owner, num_imports in rows if beyond is None or num_imports > known.get(owner, 0)]
    found = []
    for owner in newer:
        num_imports, state = connection.execute(
            "SELECT num_imports, state FROM cache_labels WHERE owner = ?", (owner,)
        ).fetchone()
        found.append(LabelRow(owner, num_imports, orjson.loads(state)))
    return found


def save_labels(connection: sqlite3.Connection, rows: list[LabelRow]) -> None:
    """A state that was imported meanwhile stays."""
    connection.executemany(
        "INSERT INTO cache_labels (owner, num_imports, state) VALUES (?, ?, ?) ON CONFLICT (owner) DO UPDATE"
        " SET state = excluded.state WHERE cache_labels.num_imports = excluded.num_imports",
        [(row.owner, row.num_imports, orjson.dumps(row.state).decode()) for row in rows],
    )


def import_labels(connection: sqlite3.Connection, owner: str, state: State | None) -> None:
    """In place of what is known; None: to observe anew. A server that runs takes it within seconds."""
    connection.execute(
        "INSERT INTO cache_labels (owner, num_imports, state) VALUES (?, 1, ?) ON CONFLICT (owner) DO UPDATE"
        " SET state = excluded.state, num_imports = num_imports + 1",
        (owner, orjson.dumps(state).decode()),
    )
