"""Keys, tenants and the audit are not set back with the ledger: what a backup has missed is brought into it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from forebay.stores.schema import migrate
from forebay.stores.sqlite import FILE_NAME, open_for_reading
from forebay.tenants.audit import write_audit
from forebay.tenants.authority import Administrator
from forebay.tenants.key_store import get_key, list_keys, list_tenants, put_key, put_tenant

AUDIT_ROW = "at, actor, via, act, tenant, target, details"


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """`revoked_again`: ids of keys that the backup holds as good ones. `fault`: why the old file could not be read."""

    revoked_again: tuple[str, ...] = ()
    fault: str | None = None


def carry_over(folder: Path, backup: Path, admin: Administrator) -> CarriedOver:
    """Merges the keys and tenants of the folder's data file into a copy of a backup, where the later change counts and
    a revocation stays; adds the audit rows that it lacks, and one of this act. Raises sqlite3.Error for the backup.
    """
    with closing(sqlite3.connect(backup, isolation_level=None)) as new:
        migrate(new)
        new.execute("BEGIN IMMEDIATE")
        carried = CarriedOver()
        if (folder / FILE_NAME).exists():
            new.execute("SAVEPOINT carrying")
            try:
                with closing(open_for_reading(folder)) as old:
                    carried = CarriedOver(_merge(old, new))
            except sqlite3.DatabaseError as exc:
                new.execute("ROLLBACK TO carrying")
                carried = CarriedOver(fault=str(exc))
        details = {"revoked_again": carried.revoked_again, "old_file_was_read": carried.fault is None}
        write_audit(new, admin.name, admin.via, "data.restore", "", FILE_NAME, details)
        new.execute("COMMIT")
    return carried


def _merge(old: sqlite3.Connection, new: sqlite3.Connection) -> tuple[str, ...]:
    revoked_again = []
    for key in list_keys(old):
        known = get_key(new, key.id)
        if key.revoked_at is not None and known is not None and known.revoked_at is None:
            revoked_again.append(key.id)
        put_key(new, key)
    for tenant in list_tenants(old):
        if tenant.updated_at:
            put_tenant(new, tenant)
    known_rows = set(new.execute(f"SELECT {AUDIT_ROW} FROM audit"))  # noqa: S608 - names of ours
    for row in old.execute(f"SELECT {AUDIT_ROW} FROM audit ORDER BY seq"):  # noqa: S608 - as above
        if row not in known_rows:
            new.execute(f"INSERT INTO audit ({AUDIT_ROW}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - as above
    return tuple(revoked_again)
