"""Notices changes of keys and tenants in the data file, whichever process makes them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import structlog

from forebay.engines.threads import DaemonThreads
from forebay.stores.sqlite import open_for_reading
from forebay.tenants.directory import Directory
from forebay.tenants.key_store import Changes, changes_after, version_of

POLL_S = 0.5
"""A key that the command line revokes is refused within a second."""

log = structlog.get_logger(__name__)


class KeyWatch:
    """Reads one row twice a second, in a thread of its own, and the rest where the row has changed."""

    def __init__(self, folder: Path, directory: Directory) -> None:
        self._folder = folder
        self._directory = directory
        self._connection: sqlite3.Connection | None = None
        self._threads = DaemonThreads(1, "keys")
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def begin(self) -> None:
        """Reads everything, which blocks for milliseconds, and starts watching, on the running loop. Raises
        sqlite3.Error."""
        self._apply(self._read())
        self._task = asyncio.create_task(self._watch(), name="keys")

    async def refresh(self) -> None:
        """Brings in now what was committed before. Never raises: where the file cannot be read, what was last read
        stays in force, and it is tried again."""
        try:
            self._apply(await (await self._threads.begin(self._read)))
        except (sqlite3.Error, OSError) as exc:
            if not self._failing:
                log.error("keys_unreadable", exc_info=exc)
            self._failing = True
        else:
            if self._failing:
                log.info("keys_readable")
            self._failing = False

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._threads.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self.refresh()

    def _read(self) -> Changes | None:
        """In the thread; None where nothing has changed."""
        if self._connection is None:
            self._connection = open_for_reading(self._folder)
        try:
            if version_of(self._connection) <= self._directory.version:
                return None
            self._connection.execute("BEGIN")
            changes = changes_after(self._connection, self._directory.version)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._connection.close()
            self._connection = None
            raise
        return changes

    def _apply(self, changes: Changes | None) -> None:
        # One that was asked for earlier may have read later: the version only grows.
        if changes is not None and changes.version > self._directory.version:
            self._directory.apply(changes)
