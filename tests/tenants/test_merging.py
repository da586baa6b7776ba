"""Copies of keys and tenants that meet, in whatever order, come out the same: the later change counts, an end stays."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.stores.sqlite import open_file
from forebay.tenants.key_store import changes_after, get_key, get_tenant, put_key, put_tenant, version_of
from forebay.tenants.keys import Key, KeyFields, Secret, Tenant
from forebay.types import Policy

FIRST = Key(
    "k",
    "acme",
    KeyFields(name="first"),
    (Secret(b"1" * 32, "aaaa", created_at=1),),
    created_at=1,
    updated_at=1,
)
RENAMED = replace(FIRST, fields=KeyFields(name="renamed"), updated_at=5)
SAME_MOMENT = replace(FIRST, fields=KeyFields(name="zero"), updated_at=5)
REVOKED = replace(FIRST, revoked_at=3, updated_at=3)
REVOKED_LATER = replace(FIRST, revoked_at=4, updated_at=4)
ROTATED = replace(
    FIRST,
    secrets=(Secret(b"2" * 32, "bbbb", created_at=2), Secret(b"1" * 32, "aaaa", created_at=1, ends_at=9)),
    updated_at=2,
)
COPIES = (FIRST, RENAMED, SAME_MOMENT, REVOKED, REVOKED_LATER, ROTATED)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_file(tmp_path)) as connection:
        yield connection


def test_keys_converge(file: sqlite3.Connection) -> None:
    """Every order of every copy, each twice: a revocation is never lost, nor put off; nor is a secret's end."""
    file.execute("BEGIN")
    outcomes = set()
    for order in itertools.permutations(COPIES):
        file.execute("SAVEPOINT one")
        for key in (*order, *order):
            put_key(file, key)
        outcomes.add(get_key(file, "k"))
        file.execute("ROLLBACK TO one")
    (merged,) = outcomes
    assert merged is not None
    assert (merged.fields.name, merged.revoked_at, merged.updated_at) == ("zero", 3, 5)
    assert merged.secrets == ROTATED.secrets


def test_the_newest_secrets_converge(file: sqlite3.Connection) -> None:
    """Copies that were rotated apart keep the same ones of all, in whatever order they meet."""
    secrets = [Secret(bytes([number]) * 32, "aaaa", created_at=number // 2) for number in range(20)]
    copies = [replace(FIRST, secrets=tuple(secrets[start::3])) for start in range(3)]
    for number, order in enumerate(itertools.permutations(copies)):
        for key in order:
            put_key(file, replace(key, id=f"{number}", secrets=tuple(_renamed(key.secrets, number))))
        merged = get_key(file, f"{number}")
        assert merged is not None
        assert sorted(secret.digest[0] for secret in merged.secrets) == list(range(12, 20))


def _renamed(secrets: tuple[Secret, ...], number: int) -> Iterator[Secret]:
    """Digests are there once in a file."""
    return (replace(secret, digest=secret.digest[:1] + bytes([number]) * 31) for secret in secrets)


def test_tenants_converge(file: sqlite3.Connection) -> None:
    """The later limits count."""
    copies = [Tenant("acme", Policy(requests_per_minute=number), updated_at=number) for number in (3, 1, 2)]
    for tenant in copies:
        put_tenant(file, tenant)
    assert get_tenant(file, "acme") == copies[0]


def test_changes_are_found_by_version(file: sqlite3.Connection) -> None:
    """What changed after a version, and nothing else, as it is now."""
    put_key(file, FIRST)
    put_tenant(file, Tenant("acme", updated_at=1))
    seen = version_of(file)
    put_key(file, replace(FIRST, id="other", secrets=()))
    put_key(file, REVOKED)
    changes = changes_after(file, seen)
    assert {key.id for key in changes.keys} == {"other", "k"}
    assert changes.tenants == ()
    assert changes.version == version_of(file) > seen
    assert changes_after(file, changes.version).keys == ()
