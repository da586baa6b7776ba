"""What administrators did: who, what, to whom, when and from where. Rows are only ever added."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Via = Literal["cli", "api"]
Act = Literal[
    "key.create",
    "key.change",
    "key.rotate",
    "key.revoke",
    "tenant.set",
    "data.backup",
    "data.restore",
    "replica.forget",
    "cache.delete",
    "cache.purge",
    "cache.import",
    "cache.forget",
]


@dataclass(frozen=True, slots=True)
class AuditRow:
    """`actor` is a key's id, or `os:` and the name of the system's user. `target` is a key's id, a tenant's
    name or a replica's, and `details` what it was given; never a secret. `at` is in Unix milliseconds."""

    seq: int
    at: int
    actor: str
    via: Via
    act: Act
    tenant: str
    target: str
    details: Mapping[str, Any]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def write_audit(
    connection: sqlite3.Connection, actor: str, via: Via, act: Act, tenant: str, target: str, details: Mapping[str, Any]
) -> None:
    """In the transaction of the act itself: neither is kept without the other."""
    connection.execute(
        "INSERT INTO audit (at, actor, via, act, tenant, target, details) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (now_ms(), actor, via, act, tenant, target, orjson.dumps(details).decode()),
    )


def list_audit(
    connection: sqlite3.Connection, *, tenant: str | None, before: int | None, limit: int
) -> tuple[AuditRow, ...]:
    """The newest rows first, of one tenant or all, from below number `before` on."""
    rows = connection.execute(
        "SELECT seq, at, actor, via, act, tenant, target, details FROM audit "
        "WHERE (? IS NULL OR seq < ?) AND (? IS NULL OR tenant = ?) ORDER BY seq DESC LIMIT ?",
        (before, before, tenant, tenant, limit),
    )
    return tuple(
        AuditRow(seq, at, actor, via, act, of, target, orjson.loads(details))
        for seq, at, actor, via, act, of, target, details in rows
    )
