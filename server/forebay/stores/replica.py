"""Which of a fleet's servers a data file belongs to."""

from __future__ import annotations

import secrets
import sqlite3

NUM_BYTES = 8


def replica_id(connection: sqlite3.Connection) -> str:
    """The file's own random name, 16 hex digits, made when it is first asked for. A copy of the file has the same."""
    made = secrets.token_hex(NUM_BYTES)
    connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES ('replica_id', ?)", (made,))
    (name,) = connection.execute("SELECT value FROM meta WHERE name = 'replica_id'").fetchone()
    return str(name)
