"""A server's ledger, read from outside while it runs or after it ended."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from forebay.ledger.rows import Reservation
from forebay.ledger.verify import verify
from forebay.stores.sqlite import open_for_reading
from support.wire import eventually


class LedgerFile:
    """The rows that are committed in a data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        with closing(open_for_reading(self._folder)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return self.query("SELECT * FROM entries WHERE kind = ? ORDER BY seq", kind)

    def settled(self, request_id: str) -> dict[str, Any]:
        """The request's settlement; waits for it."""
        found = eventually(
            lambda: self.query("SELECT * FROM entries WHERE kind = 'settle' AND request_id = ?", request_id)
        )
        (row,) = found
        return row

    def uncharged(self, request_id: str) -> dict[str, Any] | None:
        rows = self.query("SELECT * FROM entries WHERE kind = 'uncharged' AND request_id = ?", request_id)
        return rows[0] if rows else None

    def reservations(self) -> dict[str, Reservation]:
        """Those that are not settled, by request."""
        rows = self.query("SELECT request_id, reservation FROM open_requests")
        return {row["request_id"]: Reservation(*json.loads(row["reservation"])) for row in rows}

    def num_open(self) -> int:
        return len(self.reservations())

    def num_admitted(self) -> int:
        """Requests that were ever reserved for."""
        count = (
            "SELECT (SELECT count(*) FROM open_requests) + (SELECT count(*) FROM entries WHERE kind = 'settle') AS n"
        )
        return int(self.query(count)[0]["n"])

    def faults(self) -> list[str]:
        """See `forebay.ledger.verify`."""
        secret = bytes.fromhex((self._folder / "secret").read_text(encoding="ascii"))
        with closing(open_for_reading(self._folder)) as connection:
            connection.execute("BEGIN")
            return verify(connection, secret)
