"""Settled rows on their way to a store that a fleet shares, at least once each, behind everybody's back."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog

from forebay.errors import ConfigurationError, ForebayError
from forebay.failpoints import failpoint
from forebay.settings import Settings
from forebay.stores.database import Database
from forebay.stores.replica import replica_id
from forebay.stores.sqlite import open_file, open_for_reading

BATCH = 500
POLL_S = 1.0
STEP_S = 10.0
"""Longest wait for the store to take one batch, which it does in milliseconds."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

CURSOR = "sink_cursor"
NEXT_ROWS = "SELECT * FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"

SinkRow = tuple[Any, ...]
"""A row of `entries`: its number, the columns of `Entry`, its hash."""

Write = Callable[[Callable[[sqlite3.Connection], None]], None]

log = structlog.get_logger(__name__)


class SinkFault(ForebayError):
    """The store took nothing. `kind` is a word of ours: what an operator may be told."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Target(Protocol):
    """See `ledger/postgres_impl.py`. Everything raises SinkFault."""

    async def connect(self, replica_id: str) -> int:
        """The newest row of the replica's that it has."""

    async def add(self, replica_id: str, rows: list[SinkRow]) -> None:
        """Idempotent by a row's number and hash."""

    async def close(self) -> None: ...


class Sink:
    """A thread of its own with an event loop of its own: no request waits for it, however slow the store is.

    Rows are taken in their order; `cursor` is the last one that is taken, or needs not be. It is kept in the data file,
    a little late: what was taken after it is sent again after a crash, and changes nothing. A store that was set back
    or replaced gets again what the ledger still has.
    """

    def __init__(self, folder: Path, target: Target, write: Write) -> None:
        """`write` hands a write to the data file's writer; called in the sink's thread."""
        self._folder = folder
        self._target = target
        self._write = write
        self._replica = ""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._ending = False
        self.cursor = 0
        self.up = False
        self.last_fault: str | None = None
        """What kept rows back last, also when it is over."""

    def begin(self) -> None:
        """Once the data file is open."""
        with closing(open_file(self._folder)) as connection:
            self._replica = replica_id(connection)
            self.cursor = taken(connection)
        self._thread = threading.Thread(target=self._run, name="ledger-sink", daemon=True)
        self._thread.start()

    async def close(self, timeout_s: float) -> None:
        """Once the ledger is written: sends what is left, as far as the store takes it in that time."""
        if self._thread is None:
            return
        self._ending = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._wake.set)
        await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            self.up, self.last_fault = False, "failed"
            log.exception("ledger_sink_ended")

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_S
        with closing(open_for_reading(self._folder)) as connection:
            while True:
                try:
                    async with asyncio.timeout(STEP_S):
                        newest = await self._target.connect(self._replica)
                    self._advance(min(self.cursor, newest))
                    self._note_up()
                    pause = FIRST_PAUSE_S
                    await self._send(connection)
                    return
                except (SinkFault, TimeoutError, sqlite3.Error) as exc:
                    self._note_down(exc)
                finally:
                    await self._target.close()
                if self._ending:
                    return
                await self._sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _send(self, connection: sqlite3.Connection) -> None:
        """Until the end of the server, and then what is left."""
        while True:
            ending = self._ending
            rows, newest = self._read(connection)
            if rows:
                async with asyncio.timeout(STEP_S):
                    await self._target.add(self._replica, rows)
                failpoint("sink_applied")
            has_more = len(rows) == BATCH
            self._advance(rows[-1][0] if has_more else newest)
            if not has_more:
                if ending:
                    return
                await self._sleep(POLL_S)

    def _read(self, connection: sqlite3.Connection) -> tuple[list[SinkRow], int]:
        """The next rows, and the newest row that there was when they were read."""
        connection.execute("BEGIN")
        try:
            rows = connection.execute(NEXT_ROWS, (self.cursor, BATCH)).fetchall()
            (newest,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
        finally:
            connection.execute("COMMIT")
        return rows, max(newest or 0, self.cursor)

    def _advance(self, seq: int) -> None:
        if seq == self.cursor:
            return
        self.cursor = seq
        self._write(partial(_keep, seq=seq))  # left out where the disk refuses: a later one will be kept

    async def _sleep(self, seconds: float) -> None:
        """Not beyond the end."""
        if not self._ending:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _note_up(self) -> None:
        if not self.up:
            self.up = True
            log.info("ledger_sink_up", cursor=self.cursor)

    def _note_down(self, exc: Exception) -> None:
        """One line when it begins; what follows until it ends says nothing new."""
        kind = exc.kind if isinstance(exc, SinkFault) else "timeout" if isinstance(exc, TimeoutError) else "storage"
        if self.up or self.last_fault is None:
            log.warning("ledger_sink_down", reason=kind, cursor=self.cursor)
        self.up, self.last_fault = False, kind


def build_sink(settings: Settings, database: Database) -> Sink | None:
    """The sink that the settings ask for. Connects to nothing yet. Raises ConfigurationError."""
    if settings.ledger_postgres_url is None:
        return None
    try:
        from forebay.ledger.postgres_impl import PostgresTable
    except ImportError as exc:
        raise ConfigurationError("FOREBAY_LEDGER_POSTGRES_URL needs psycopg: install forebay[postgres].") from exc
    table = PostgresTable(settings.ledger_postgres_url.get_secret_value())
    return Sink(database.folder, table, database.call_from_thread)


def taken(connection: sqlite3.Connection) -> int:
    """The last row that a sink has taken, as far as it was kept; 0 if there never was one."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (CURSOR,)).fetchone()
    return 0 if row is None else int(row[0])


def _keep(connection: sqlite3.Connection, *, seq: int) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (CURSOR, seq),
    )
