"""One data folder in use: its lock, its writer, and reads beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from forebay.errors import StorageUnavailable
from forebay.stores.group_commit import GroupCommit
from forebay.stores.sqlite import ServingLock, open_file, open_for_reading, storage_errors
from forebay.stores.writing import CALLS

T = TypeVar("T")


class Database:
    """Belongs to one server from `open` until `close`."""

    def __init__(self, folder: Path, on_fatal: Callable[[str], None] | None = None) -> None:
        """`on_fatal`: see `GroupCommit`."""
        self.folder = folder
        self._on_fatal = on_fatal
        self._lock: ServingLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._writer: GroupCommit | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """For what is done before `begin`."""
        assert self._connection is not None, "open() comes first"
        return self._connection

    @property
    def writer(self) -> GroupCommit:
        assert self._writer is not None, "begin() comes first"
        return self._writer

    def open(self) -> None:
        """Locks the folder, opens and migrates its file. Idempotent; blocks for milliseconds.

        Raises ConfigurationError.
        """
        if self._lock is None:
            self._lock = ServingLock(self.folder)
            self._connection = open_file(self.folder)

    def begin(self) -> None:
        """Starts the writer on the running loop; from then on the connection is the writer's alone."""
        self._writer = GroupCommit(self.connection, self._on_fatal)

    async def write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """See `GroupCommit.call`."""
        return await self.writer.call(call)

    def call_from_thread(self, call: Callable[[sqlite3.Connection], object]) -> None:
        """Hands over a call from any thread; it is left out while the disk refuses."""

        def hand_over() -> None:
            with suppress(StorageUnavailable):
                self.writer.put(CALLS, call)

        with suppress(RuntimeError):  # the loop is closed
            self.writer.loop.call_soon_threadsafe(hand_over)

    async def read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """What `call` returns of a snapshot of the committed rows, read in a thread. Raises `StorageUnavailable`."""

        def reading() -> T:
            with storage_errors(), closing(open_for_reading(self.folder)) as connection:
                connection.execute("BEGIN")
                return call(connection)

        return await asyncio.to_thread(reading)

    async def close(self, timeout_s: float) -> bool:
        """Writes what was handed over; False where the disk took not all of it in time. Lets go of the folder."""
        written = True
        if self._writer is not None:
            written = await self._writer.close(timeout_s)
        elif self._connection is not None:
            self._connection.close()
        if self._lock is not None:
            self._lock.release()
        return written
