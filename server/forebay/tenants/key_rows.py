"""Keys and tenants as rows that servers hand to each other: JSON, the same for the same content."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from forebay.tenants.key_store import Changes, get_key, get_tenant, put_key, put_tenant
from forebay.tenants.keys import Key, KeyFields, Secret, Tenant, policy_from_json, policy_to_json

KEY, TENANT = "k:", "t:"
"""What the names of rows begin with."""


def names_of(changes: Changes) -> set[str]:
    return {KEY + key.id for key in changes.keys} | {TENANT + tenant.name for tenant in changes.tenants}


def read_rows(connection: sqlite3.Connection, names: Iterable[str]) -> dict[str, bytes | None]:
    """As the file has them; None for what it has not."""
    return {name: _read(connection, name) for name in names}


def merge_rows(connection: sqlite3.Connection, rows: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Brings in rows of other servers, and returns what there is then. A row that says nothing new changes nothing.

    Raises ValueError for one that cannot be understood.
    """
    merged = {}
    for name, row in rows.items():
        before = _read(connection, name)
        connection.execute("SAVEPOINT row")
        try:
            if name.startswith(KEY):
                put_key(connection, _key(row))
            else:
                put_tenant(connection, _tenant(row))
        except (KeyError, TypeError) as exc:
            raise ValueError(f"the row {name[:64]} has another shape") from exc
        merged[name] = _read(connection, name)
        if merged[name] == before:
            connection.execute("ROLLBACK TO row")
        connection.execute("RELEASE row")
    return merged


def _read(connection: sqlite3.Connection, name: str) -> bytes | None:
    if name.startswith(KEY):
        key = get_key(connection, name.removeprefix(KEY))
        return None if key is None else _key_row(key)
    tenant = get_tenant(connection, name.removeprefix(TENANT))
    return _tenant_row(tenant) if tenant.updated_at else None


def _key_row(key: Key) -> bytes:
    return orjson.dumps(
        {
            "id": key.id,
            "tenant": key.tenant,
            "fields": key.fields.to_json(),
            "created_at": key.created_at,
            "updated_at": key.updated_at,
            "revoked_at": key.revoked_at,
            "secrets": [
                {
                    "digest": secret.digest.hex(),
                    "last_four": secret.last_four,
                    "created_at": secret.created_at,
                    "ends_at": secret.ends_at,
                }
                for secret in key.secrets
            ],
        }
    )


def _key(row: bytes) -> Key:
    known: dict[str, Any] = orjson.loads(row)
    secrets = tuple(Secret(**{**secret, "digest": bytes.fromhex(secret["digest"])}) for secret in known.pop("secrets"))
    return Key(**{**known, "fields": KeyFields.from_json(known["fields"]), "secrets": secrets})


def _tenant_row(tenant: Tenant) -> bytes:
    return orjson.dumps({"name": tenant.name, "policy": policy_to_json(tenant.policy), "updated_at": tenant.updated_at})


def _tenant(row: bytes) -> Tenant:
    known: dict[str, Any] = orjson.loads(row)
    return replace(Tenant(known["name"], policy_from_json(known["policy"])), updated_at=known["updated_at"])
