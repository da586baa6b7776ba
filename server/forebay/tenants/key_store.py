"""Keys and tenants in the data file. Functions that take a connection leave the transaction to their caller."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from forebay.errors import ConfigurationError
from forebay.stores.sqlite import FILE_NAME, open_for_reading
from forebay.tenants.keys import Key, KeyFields, Secret, Tenant, policy_from_json, policy_to_json

MAX_SECRETS = 8
"""The newest of a key: one that is rotated ever again within the grace period has no more that still work, and older
ones are dropped. Of copies that meet the newest are the same whatever the order."""

VERSION_NAME = "keys_version"

NEXT_VERSION = """
INSERT INTO meta (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value
"""
# Copies of a row may meet in any order and any number of times, and come out the same.
PUT_KEY = """
INSERT INTO keys (id, tenant, fields, created_at, revoked_at, updated_at, changed) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    fields = CASE WHEN (excluded.updated_at, excluded.fields) > (updated_at, fields)
        THEN excluded.fields ELSE fields END,
    revoked_at = MIN(COALESCE(revoked_at, excluded.revoked_at), COALESCE(excluded.revoked_at, revoked_at)),
    updated_at = MAX(updated_at, excluded.updated_at),
    changed = excluded.changed
"""
ADD_DIGEST = """
INSERT INTO key_secrets (digest, key_id, last_four, created_at, ends_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (digest) DO UPDATE SET
    ends_at = MIN(COALESCE(ends_at, excluded.ends_at), COALESCE(excluded.ends_at, ends_at))
"""
DROP_SECRETS = f"""
DELETE FROM key_secrets WHERE key_id = ?1 AND digest NOT IN (
    SELECT digest FROM key_secrets WHERE key_id = ?1 ORDER BY created_at DESC, digest LIMIT {MAX_SECRETS}
)
"""  # noqa: S608 - a number of ours
PUT_TENANT = """
INSERT INTO tenants (name, policy, updated_at, changed) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET
    policy = excluded.policy, updated_at = excluded.updated_at, changed = excluded.changed
    WHERE (excluded.updated_at, excluded.policy) > (updated_at, policy)
"""
SELECT_KEYS = "SELECT id, tenant, fields, created_at, updated_at, revoked_at FROM keys"
SELECT_SECRETS = """
SELECT digest, last_four, created_at, ends_at FROM key_secrets WHERE key_id = ? ORDER BY created_at DESC, digest
"""


@dataclass(frozen=True, slots=True)
class Changes:
    """Keys and tenants that changed after a version, as they are at `version`."""

    version: int
    keys: tuple[Key, ...]
    tenants: tuple[Tenant, ...]


def put_key(connection: sqlite3.Connection, key: Key) -> None:
    """Adds the key, or merges it with the row that is there: the later change counts, a revocation stays."""
    version = _next_version(connection)
    row = (key.id, key.tenant, key.fields.to_json(), key.created_at, key.revoked_at, key.updated_at, version)
    connection.execute(PUT_KEY, row)
    for secret in key.secrets:
        connection.execute(ADD_DIGEST, (secret.digest, key.id, secret.last_four, secret.created_at, secret.ends_at))
    connection.execute(DROP_SECRETS, (key.id,))


def put_tenant(connection: sqlite3.Connection, tenant: Tenant) -> None:
    """The same for a tenant."""
    version = _next_version(connection)
    connection.execute(PUT_TENANT, (tenant.name, policy_to_json(tenant.policy), tenant.updated_at, version))


def get_key(connection: sqlite3.Connection, key_id: str) -> Key | None:
    return next(_keys(connection, connection.execute(f"{SELECT_KEYS} WHERE id = ?", (key_id,))), None)


def list_keys(
    connection: sqlite3.Connection, *, tenant: str | None = None, after: str = "", limit: int = -1
) -> tuple[Key, ...]:
    """Keys by id, those of one tenant or all, from the one behind `after` on."""
    rows = connection.execute(
        f"{SELECT_KEYS} WHERE id > ? AND (? IS NULL OR tenant = ?) ORDER BY id LIMIT ?", (after, tenant, tenant, limit)
    )
    return tuple(_keys(connection, rows.fetchall()))


def num_live_keys(connection: sqlite3.Connection, tenant: str) -> int:
    """Those that are not revoked; expired ones count."""
    query = "SELECT count(*) FROM keys WHERE tenant = ? AND revoked_at IS NULL"
    (count,) = connection.execute(query, (tenant,)).fetchone()
    return int(count)


def get_tenant(connection: sqlite3.Connection, name: str) -> Tenant:
    """As it was set; without limits where nothing was."""
    row = connection.execute("SELECT name, policy, updated_at FROM tenants WHERE name = ?", (name,)).fetchone()
    return Tenant(name) if row is None else _tenant(row)


def list_tenants(connection: sqlite3.Connection, *, after: str = "", limit: int = -1) -> tuple[Tenant, ...]:
    """All that were set or have a key, by name, from the one behind `after` on."""
    rows = connection.execute(
        "SELECT named.name, policy, updated_at FROM (SELECT name FROM tenants UNION SELECT tenant FROM keys) AS named "
        "LEFT JOIN tenants ON tenants.name = named.name WHERE named.name > ? ORDER BY 1 LIMIT ?",
        (after, limit),
    )
    return tuple(Tenant(row[0]) if row[1] is None else _tenant(row) for row in rows)


def version_of(connection: sqlite3.Connection) -> int:
    """Grows with every change of a key or a tenant, by whatever process; 0 where there never was one."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (VERSION_NAME,)).fetchone()
    return 0 if row is None else row[0]


def changes_after(connection: sqlite3.Connection, version: int) -> Changes:
    """To be called in a transaction, so that all of it is of one moment."""
    tenants = connection.execute("SELECT name, policy, updated_at FROM tenants WHERE changed > ?", (version,))
    keys = connection.execute(f"{SELECT_KEYS} WHERE changed > ?", (version,))
    return Changes(
        version_of(connection), tuple(_keys(connection, keys.fetchall())), tuple(_tenant(row) for row in tenants)
    )


def has_keys(folder: Path) -> bool:
    """Whether the folder's data file, if there is one, holds a key, also one that was revoked. Raises
    ConfigurationError."""
    path = folder / FILE_NAME
    if not path.exists():
        return False
    try:
        with closing(open_for_reading(folder)) as connection:
            return connection.execute("SELECT id FROM keys LIMIT 1").fetchone() is not None
    except sqlite3.Error as exc:
        raise ConfigurationError(f"The data file {path} cannot be read ({exc}).") from exc


def _next_version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute(NEXT_VERSION, (VERSION_NAME,)).fetchone()
    return int(version)


def _keys(connection: sqlite3.Connection, rows: Iterable[tuple[str, str, str, int, int, int | None]]) -> Iterator[Key]:
    for key_id, tenant, fields, created_at, updated_at, revoked_at in rows:
        secrets = tuple(Secret(*secret) for secret in connection.execute(SELECT_SECRETS, (key_id,)))
        yield Key(key_id, tenant, KeyFields.from_json(fields), secrets, created_at, updated_at, revoked_at)


def _tenant(row: tuple[str, str, int]) -> Tenant:
    name, policy, updated_at = row
    return Tenant(name, policy_from_json(policy), updated_at)
