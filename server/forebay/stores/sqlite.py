"""The data file: opened so that what was committed survives kill -9 and power loss, and by one server at a time."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from forebay.errors import ConfigurationError, StorageUnavailable
from forebay.stores.schema import migrate

FILE_NAME = "forebay.sqlite3"
LOCK_NAME = "serving.lock"
NUM_STATEMENTS = 512
"""Kept prepared: the writer has one for each number of rows."""

BUSY_S = 5.0
"""How long a statement waits for another process that is writing: the command line beside a server."""

PAUSE_S = 0.01

PRIMARY = 0xFF
"""Of SQLite's error codes the part that all of a kind share."""


def prepare_folder(folder: Path) -> None:
    """Creates the data folder, readable by its owner alone. Raises ConfigurationError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
            raise PermissionError("its file system is read-only" if is_read_only else "no permission to write to it")
    except OSError as exc:
        raise ConfigurationError(f"The data folder {folder} cannot be used ({exc}). Set FOREBAY_DATA_DIR.") from exc


def open_file(folder: Path) -> sqlite3.Connection:
    """The folder's data file for reading and writing, created and migrated where needed. Raises ConfigurationError."""
    prepare_folder(folder)
    path = folder / FILE_NAME
    try:
        # SQLite gives the files beside it the same mode. One that is there is not opened: to close it would drop the
        # locks of this process's connections to it (sqlite.org/howtocorrupt.html, 2.2).
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = _connect(path.absolute().as_uri())
        write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection)
    except (OSError, sqlite3.Error) as exc:
        raise ConfigurationError(f"The data file {path} cannot be opened ({exc}). Set FOREBAY_DATA_DIR.") from exc
    return connection


def write_ahead(connection: sqlite3.Connection) -> None:
    """Has the file written through a log (WAL). To a new file that is a write, for which SQLite does not wait where
    somebody else is writing."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & PRIMARY != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_S)


def open_as_it_is(folder: Path) -> sqlite3.Connection:
    """The folder's data file for a row more, neither created nor migrated. Raises sqlite3.Error."""
    return _connect((folder / FILE_NAME).absolute().as_uri() + "?mode=rw")


def open_for_reading(folder: Path) -> sqlite3.Connection:
    """A connection that sees what is committed and writes nothing. Raises sqlite3.Error where there is no file."""
    return _connect((folder / FILE_NAME).absolute().as_uri() + "?mode=ro")


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=NUM_STATEMENTS,
        uri=True,
    )
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def storage_errors() -> Iterator[None]:
    """SQLite's failures as `StorageUnavailable`; its words are for the log, never for a client."""
    try:
        yield
    except sqlite3.Error as exc:
        raise StorageUnavailable("The ledger cannot be written right now.", retry_after_s=1) from exc


class ServingLock:
    """Held by the one server that may use a data folder; the kernel lets go of it when the process ends."""

    def __init__(self, folder: Path) -> None:
        """Takes it. Raises ConfigurationError where another server has it."""
        prepare_folder(folder)
        try:
            self._fd = os.open(folder / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise ConfigurationError(f"The data folder {folder} cannot be used ({exc}). Set FOREBAY_DATA_DIR.") from exc
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise ConfigurationError(
                f"Another server (process {holder or 'unknown'}) uses the data folder {folder}. "
                "Give each server a folder of its own with FOREBAY_DATA_DIR."
            ) from exc
        with suppress(OSError):  # a full disk: the number is for a sentence, the lock holds without it
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
