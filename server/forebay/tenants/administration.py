"""The acts of administrators on keys and tenants, for the admin API and the command line alike.

Each is one transaction of the caller's: the change and its audit row, or neither. Each raises `PermissionDenied` for
what the administrator does not hold. Keys of tenants that he may not see do not exist for him: `NotFound`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from forebay.errors import InvalidRequest, NotFound, PermissionDenied
from forebay.tenants.audit import now_ms, write_audit
from forebay.tenants.authority import Administrator
from forebay.tenants.key_format import digest_of, new_id, new_key
from forebay.tenants.key_store import MAX_SECRETS, get_key, get_tenant, num_live_keys, put_key, put_tenant
from forebay.tenants.keys import TENANT_NAME, Key, KeyFields, Secret, Tenant
from forebay.tenants.roles import SCOPES_OF
from forebay.types import Policy

MAX_LIVE_KEYS = 1000
"""Of a tenant whose admin makes another one."""


def create_key(
    connection: sqlite3.Connection, admin: Administrator, tenant: str, changes: Mapping[str, Any]
) -> tuple[Key, str]:
    """The new key and its secret, which is nowhere else. `changes`: what differs from the defaults of `KeyFields`."""
    admin.check_tenant(tenant)
    _check_name(tenant)
    fields = _checked(KeyFields().with_changes(changes))
    admin.check_grant(fields, get_tenant(connection, tenant).policy)
    if admin.role != "owner" and num_live_keys(connection, tenant) >= MAX_LIVE_KEYS:
        raise PermissionDenied(f"The tenant has {MAX_LIVE_KEYS} keys that are not revoked; an owner may make more.")
    now = now_ms()
    key_id = new_id()
    text, secret = _new_secret(key_id, now)
    key = Key(key_id, tenant, fields, (secret,), created_at=now, updated_at=now)
    put_key(connection, key)
    write_audit(connection, admin.name, admin.via, "key.create", tenant, key_id, asdict(fields))
    return key, text


def find_key(connection: sqlite3.Connection, admin: Administrator, key_id: str) -> Key:
    key = get_key(connection, key_id)
    if key is None or not admin.can_see(key.tenant):
        raise NotFound(f"There is no key `{key_id[:64]}`.")
    return key


def change_key(connection: sqlite3.Connection, admin: Administrator, key_id: str, changes: Mapping[str, Any]) -> Key:
    """`changes` are those of `KeyFields.with_changes`. Where they change nothing, nothing is written."""
    key = _live(find_key(connection, admin, key_id))
    admin.check_over(key)
    fields = _checked(key.fields.with_changes(changes))
    admin.check_grant(fields, get_tenant(connection, key.tenant).policy)
    if fields == key.fields:
        return key
    key = _put(connection, replace(key, fields=fields))
    write_audit(connection, admin.name, admin.via, "key.change", key.tenant, key.id, changes)
    return key


def rotate_key(connection: sqlite3.Connection, admin: Administrator, key_id: str, grace_ms: int) -> tuple[Key, str]:
    """A new secret for the same key, so that its limits, budgets and bills go on. Older ones end after the grace."""
    key = _live(find_key(connection, admin, key_id))
    admin.check_over(key)
    # Whoever is given the secret holds what the key holds.
    admin.check_grant(key.fields, get_tenant(connection, key.tenant).policy)
    now = now_ms()
    if key.fields.expires_at is not None and key.fields.expires_at <= now:
        raise InvalidRequest(f"The key `{key.id}` has expired: give it a later end first.")
    text, secret = _new_secret(key.id, now)
    older = (_ended(old, now + grace_ms) for old in key.secrets[: MAX_SECRETS - 1])
    key = _put(connection, replace(key, secrets=(secret, *older)))
    write_audit(connection, admin.name, admin.via, "key.rotate", key.tenant, key.id, {"grace_s": grace_ms / 1000})
    return key, text


def revoke_key(connection: sqlite3.Connection, admin: Administrator, key_id: str) -> Key:
    """For good, with all its secrets. Idempotent."""
    key = find_key(connection, admin, key_id)
    admin.check_over(key)
    if key.revoked_at is not None:
        return key
    key = _put(connection, replace(key, revoked_at=now_ms()))
    write_audit(connection, admin.name, admin.via, "key.revoke", key.tenant, key.id, {})
    return key


def set_tenant(connection: sqlite3.Connection, admin: Administrator, name: str, policy: Policy) -> Tenant:
    """Replaces the limits and budgets that hold for all keys of the tenant together."""
    admin.check_owner()
    _check_name(name)
    before = get_tenant(connection, name)
    if before.updated_at and policy == before.policy:
        return before
    tenant = Tenant(name, policy, updated_at=max(now_ms(), before.updated_at + 1))
    put_tenant(connection, tenant)
    write_audit(connection, admin.name, admin.via, "tenant.set", name, name, asdict(policy))
    return tenant


def _checked(fields: KeyFields) -> KeyFields:
    if beyond := set(fields.scopes) - SCOPES_OF[fields.role]:
        raise InvalidRequest(f"A key with the role {fields.role} has no scope `{min(beyond)}`.", param="scopes")
    if fields.expires_at is not None and fields.expires_at <= now_ms():
        raise InvalidRequest("`expires_at` must be in the future.", param="expires_at")
    return fields


def _check_name(tenant: str) -> None:
    if not TENANT_NAME.fullmatch(tenant):
        raise InvalidRequest(
            "A tenant's name is 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit.",
            param="tenant",
        )


def _live(key: Key) -> Key:
    if key.revoked_at is not None:
        raise InvalidRequest(f"The key `{key.id}` was revoked: make a new one.")
    return key


def _put(connection: sqlite3.Connection, key: Key) -> Key:
    key = replace(key, updated_at=max(now_ms(), key.updated_at + 1))
    put_key(connection, key)
    return key


def _new_secret(key_id: str, now: int) -> tuple[str, Secret]:
    text = new_key(key_id)
    return text, Secret(digest_of(text), text[-4:], created_at=now)


def _ended(secret: Secret, at: int) -> Secret:
    return replace(secret, ends_at=at if secret.ends_at is None else min(secret.ends_at, at))
