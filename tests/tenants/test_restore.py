"""A restored backup brings no revoked key back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.command import forebay


def run(folder: Path, *args: str) -> str:
    done = forebay(*args, data_dir=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("readable", [True, False])
def test_what_ended_since_the_backup_stays_ended(tmp_path: Path, readable: bool) -> None:
    """Revocations and limits of the replaced file count, and its audit goes on; where it cannot be read, that is
    said."""
    folder, saved = tmp_path / "data", tmp_path / "saved"
    made = json.loads(run(folder, "keys", "create", "--tenant", "acme", "--json"))
    run(folder, "ledger", "backup", str(saved))
    run(folder, "keys", "revoke", made["id"])
    run(folder, "tenants", "set", "acme", "--rpm", "7")
    if not readable:
        (folder / "forebay.sqlite3").write_bytes(b"damaged" * 1000)
    said = run(folder, "ledger", "restore", str(saved))
    (key,) = json.loads(run(folder, "keys", "list", "--json"))
    (tenant,) = json.loads(run(folder, "tenants", "list", "--json"))
    if readable:
        assert f"Key {made['id']} was revoked after the backup" in said
        assert (key["status"], tenant["limits"]["requests_per_minute"]) == ("revoked", 7)
        assert acts(folder) == ["key.create", "data.backup", "key.revoke", "tenant.set", "data.restore"]
    else:
        assert "what changed in keys since the backup is lost" in said
        assert key["status"] == "active"
        assert acts(folder) == ["key.create", "data.restore"]


def acts(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "forebay.sqlite3")) as connection:
        return [act for (act,) in connection.execute("SELECT act FROM audit ORDER BY seq")]
