"""Copies of the data file while it is in use, and their way back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from forebay.errors import ConfigurationError
from forebay.stores.secret import read_or_create_secret
from forebay.stores.sqlite import FILE_NAME, ServingLock, open_as_it_is, open_for_reading
from forebay.tenants.audit import write_audit
from forebay.tenants.authority import Administrator
from forebay.tenants.carry_over import CarriedOver, carry_over

BESIDE = ".secret"


def back_up(folder: Path, target: Path, admin: Administrator) -> bool:
    """A consistent copy of the folder's data file, and its secret beside it, readable by their owner alone.

    The server may go on. Returns whether the folder's audit has the act; where the disk takes no row, the copy's has.
    Raises ConfigurationError, sqlite3.Error, OSError.
    """
    if target.exists():
        raise ConfigurationError(f"{target} exists already; a backup replaces nothing.")
    draft = target.with_name(f"{target.name}.part")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600))
    try:
        with closing(open_for_reading(folder)) as source, closing(sqlite3.connect(draft, isolation_level=None)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            _write_secret(target.with_name(target.name + BESIDE), read_or_create_secret(folder))
            is_noted = _note(folder, target, admin)
            if not is_noted:
                _write_row(copy, target, admin)
        _sync(draft)
        draft.rename(target)
        return is_noted
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _note(folder: Path, target: Path, admin: Administrator) -> bool:
    try:
        with closing(open_as_it_is(folder)) as file:
            _write_row(file, target, admin)
    except sqlite3.OperationalError:  # a full or read-only disk is no reason to have no backup
        return False
    return True


def _write_row(file: sqlite3.Connection, target: Path, admin: Administrator) -> None:
    write_audit(file, admin.name, admin.via, "data.backup", "", FILE_NAME, {"to": str(target.absolute())})


def restore(folder: Path, source: Path, admin: Administrator) -> CarriedOver:
    """Puts a backup in the place of the folder's data file, which is kept beside it as `.before-restore`. Keys, tenants
    and the audit are not set back.

    Raises ConfigurationError where a server uses the folder or the backup is damaged.
    """
    with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as backup:
        try:
            (state,) = backup.execute("PRAGMA integrity_check").fetchone()
            backup.execute("SELECT 1 FROM entries LIMIT 1")
        except sqlite3.Error as exc:
            raise ConfigurationError(f"{source} is not a backup of a data file: {exc}.") from exc
    if state != "ok":
        raise ConfigurationError(f"{source} is damaged: {state}.")
    lock = ServingLock(folder)
    try:
        path = folder / FILE_NAME
        draft = folder / f"{FILE_NAME}.restoring"
        shutil.copyfile(source, draft)
        draft.chmod(0o600)
        carried = carry_over(folder, draft, admin)
        _sync(draft)
        if path.exists():
            with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(path)) as old:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                old.execute("PRAGMA journal_mode = DELETE")
            _keep(path)
        draft.replace(path)
        _sync(folder)
        secret = source.with_name(source.name + BESIDE)
        if secret.exists():
            _write_secret(folder / "secret", bytes.fromhex(secret.read_text(encoding="ascii")))
        return carried
    finally:
        lock.release()


def _keep(path: Path) -> None:
    """The file stays in its place, too, so that there is one at every moment; a log that a damaged one has left is
    moved, or it would be taken for the new file's."""
    kept = path.with_name(f"{path.name}.before-restore")
    kept.unlink(missing_ok=True)
    os.link(path, kept)
    for suffix in ("-wal", "-shm"):
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.replace(kept.with_name(kept.name + suffix))


def _write_secret(path: Path, secret: bytes) -> None:
    draft = path.with_name(f"{path.name}.part")
    fd = os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(secret.hex())
    _sync(draft)
    draft.replace(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
