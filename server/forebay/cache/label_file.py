"""The labels' state of all owners: in memory for the tier, in the data file for the next process and for operators."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import structlog

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.groups import Groups, check_state
from forebay.cache.label_rows import LabelRow, State, read_labels, save_labels
from forebay.errors import StorageUnavailable
from forebay.stores.database import Database
from forebay.stores.sqlite import open_for_reading, storage_errors

HEAR_S = 1.0
SAVE_EVERY = 10
"""How often the file is asked for imports, and after how many times what has changed is written."""

log = structlog.get_logger(__name__)


class LabelFile:
    """`begin`, then `groups`, then `close`. A crash loses the labels of the last seconds.

    While the disk refuses, labels are kept in memory and written later.
    """

    def __init__(self, database: Database, aims_of: Callable[[str], Aims]) -> None:
        """`aims_of`: what is asked of an owner."""
        self.aims_of = aims_of
        self._database = database
        self._saved: dict[str, State] = {}
        self._num_imports: dict[str, int] = {}
        self._groups: Groups | None = None
        self._source = ""
        self._unwritten: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """On the running loop, once the database is open; blocks for milliseconds. Raises `StorageUnavailable`."""
        with storage_errors(), closing(open_for_reading(self._database.folder)) as file:
            self._take(read_labels(file))
        self._task = asyncio.create_task(self._keep_up(), name="cache-labels")

    def groups(self, source: str) -> Groups:
        """Labels of another source say nothing of this one, so with a new one all observe anew."""
        if self._groups is None or source != self._source:
            self._put_away()
            self._groups, self._source = Groups(self.aims_of, source, self._saved), source
        return self._groups

    def states(self) -> Iterator[tuple[str, State]]:
        """Of all owners, as they are now."""
        self._put_away()
        yield from sorted(self._saved.items())

    def state(self, owner: str) -> State | None:
        """As it is now."""
        self._put_away()
        return self._saved.get(owner)

    def known(self, owner: str) -> Assurance | None:
        """As it is now, of what source ever."""
        state = self.state(owner)
        return None if state is None else check_state(state, self.aims_of(owner))

    def in_use(self) -> Iterator[tuple[str, Assurance]]:
        """Of owners that were asked for lately."""
        return iter(()) if self._groups is None else iter(self._groups)

    async def hear(self) -> None:
        """Takes what was imported into the file. Raises `StorageUnavailable`."""
        known = dict(self._num_imports)

        def read(file: sqlite3.Connection) -> list[LabelRow]:
            return read_labels(file, known)

        self._take(await self._database.read(read))

    async def save(self) -> None:
        """Raises `StorageUnavailable`."""
        self._put_away()
        owners, self._unwritten = self._unwritten, set()
        rows = [LabelRow(owner, self._num_imports.get(owner, 0), self._saved.get(owner)) for owner in owners]
        if not rows:
            return
        try:
            await self._database.write(lambda file: save_labels(file, rows))
        except BaseException:
            self._unwritten |= owners
            raise

    async def close(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            try:
                await self.save()
            except StorageUnavailable:
                log.warning("cache_labels_not_saved")

    async def _keep_up(self) -> None:
        num_heard = 0
        while True:
            await asyncio.sleep(HEAR_S)
            num_heard += 1
            try:
                await self.hear()
                if num_heard % SAVE_EVERY == 0:
                    await self.save()
            except StorageUnavailable:
                log.debug("cache_labels_wait")
            except Exception:
                log.exception("cache_labels_failed")

    def _put_away(self) -> None:
        if self._groups is not None:
            self._unwritten.update(self._groups.save())

    def _take(self, rows: list[LabelRow]) -> None:
        """In place of what is in memory, once."""
        for row in rows:
            if row.num_imports <= self._num_imports.get(row.owner, -1):
                continue
            self._num_imports[row.owner] = row.num_imports
            self._unwritten.discard(row.owner)
            if self._groups is not None:
                self._groups.forget(row.owner)
                if row.state is not None and row.state.get("source") != self._source:
                    log.warning("cache_labels_of_another_source", owner=row.owner)
            if row.state is None:
                self._saved.pop(row.owner, None)
            else:
                self._saved[row.owner] = row.state
