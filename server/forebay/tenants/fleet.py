"""The servers that share budgets through Redis: who this one is, and whom it knows, also when Redis has forgotten."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from forebay.stores.database import Database

ID_NAME, KNOWN_NAME = "replica_id", "known_replicas"

QUARANTINE_MS = 3_000
"""Where nobody says how many replicas there are: how long a new or wiped Redis is given to hear of all of them."""

ALIVE_MS = 5_000
"""A replica that was not heard of for so long is no longer counted among those that share the rate limits."""


@dataclass(frozen=True, slots=True)
class FleetState:
    """As Redis saw it last. `seeded`: it knows what this replica holds. `missing`: of how many others it does not."""

    seeded: bool = False
    num_alive: int = 1
    missing: int = 0
    evicts: bool = False


class Fleet:
    """Nobody is forgotten unless an operator says so (`forebay replicas forget`)."""

    def __init__(self, database: Database, replicas: int | None, quarantine_ms: int = QUARANTINE_MS) -> None:
        """`replicas`: how many there are, where an operator says so."""
        self._database = database
        self._replicas = replicas
        self._quarantine_ms = quarantine_ms
        self._kept: frozenset[str] = frozenset()
        self.replica_id = ""
        self.known: frozenset[str] = frozenset()
        self.state = FleetState()

    @property
    def num_shares(self) -> int:
        """Among how many the rate limits are divided while Redis is away."""
        return self._replicas or self.state.num_alive

    async def load(self) -> None:
        """Who this replica is: made up once for each data folder. Raises `StorageUnavailable`."""
        self.replica_id, self._kept = await self._database.write(_load)
        self.known = self._kept

    def message(self) -> dict[str, Any]:
        return {
            "known": sorted(self.known),
            "replicas": self._replicas or 0,
            "quarantine_ms": self._quarantine_ms,
            "alive_ms": ALIVE_MS,
        }

    def heard(self, answer: Any) -> None:
        seeded, num_alive, missing, evicts, known, forgotten = answer
        self.state = FleetState(bool(seeded), max(1, num_alive), missing, bool(evicts))
        gone = {replica.decode() for replica in forgotten} - {self.replica_id}
        self.known = (self.known | {replica.decode() for replica in known}) - gone

    @property
    def is_new(self) -> bool:
        """Whether somebody has come or was forgotten since it was written down."""
        return self.known != self._kept

    async def keep(self) -> None:
        """Writes down who is known. Raises `StorageUnavailable`."""
        known = self.known
        await self._database.write(lambda connection: _save(connection, known))
        self._kept = known


def _load(connection: sqlite3.Connection) -> tuple[str, frozenset[str]]:
    connection.execute("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)", (ID_NAME, secrets.token_hex(8)))
    (replica_id,) = connection.execute("SELECT value FROM meta WHERE name = ?", (ID_NAME,)).fetchone()
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (KNOWN_NAME,)).fetchone()
    return replica_id, frozenset([replica_id, *(orjson.loads(row[0]) if row else ())])


def _save(connection: sqlite3.Connection, known: Iterable[str]) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (KNOWN_NAME, orjson.dumps(sorted(known))),
    )
