"""One thread that writes to the data file, many requests' writes in one commit."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import structlog

from forebay.errors import StorageUnavailable
from forebay.failpoints import failpoint
from forebay.stores.handed_over import Done, Write, rank, tell_all, with_outcomes
from forebay.stores.writing import CALLS, Writing

LINGER_S = 0.01
LINGER_MOST = 32
"""How long writes that nobody waits for gather, and how many of them: few commits, and none that others wait for."""

GATHER_S = 0.002
"""After which no further turn of the loop is waited for, while each brings more writes that somebody waits for: a
commit wakes a thread and then the loop, and is best done while the loop has little else to do."""

RETRY_S = 0.25

GIVE_WAY_S = 0.002
"""How often the loop pauses for the writer. Between two turns it lets go of the interpreter's lock and takes it back
before another thread has woken up, so while it is busy a commit might take seconds: a thread that keeps the lock is
made to give way after 5 ms, one that lets go of it in between is not."""

PAUSE_S = 0.00005

WRITE_BACK_MOST = 1_500
"""Writes after which the log is written back into the file, in a moment when nothing waits; 4 to 20 MB of log."""

LONGEST_LOG_PAGES = 8_000
"""32 MB: the commit that reaches it writes the log back, where such a moment never came."""

DISKS_FAULT = (sqlite3.OperationalError, sqlite3.InternalError, OSError, MemoryError)
"""The disk's or the machine's, and may pass, as a `sqlite3.DatabaseError` that is no other kind of it; everything else
a write brings about by itself."""
PROBE = "INSERT INTO meta (name, value) VALUES ('probe', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

T = TypeVar("T")

log = structlog.get_logger(__name__)


class GroupCommit:
    """The file's only writer in this process. While one commit waits for the disk, the next one's writes gather.

    What nobody waits for goes along with what somebody waits for, or after a moment by itself. While a commit runs that
    requests wait for, the loop has least to do: one beside a busy loop takes three times as long. Calls have a commit
    of their own after it: what they do takes as long as they like, and may go wrong in more ways.

    A write is durable when its outcome is known. Where the disk refuses, the commit's writes fail with
    `StorageUnavailable`, but for those that are `kept`: they are tried again until they succeed. Until then, and until
    a probe succeeds, other writes are refused at once.
    """

    def __init__(self, connection: sqlite3.Connection, on_fatal: Callable[[str], None] | None = None) -> None:
        """Call it on the running loop, on which outcomes are told. `on_fatal` gets a sentence, on the loop, if the
        thread ends by a defect: nothing that is handed over is written any more."""
        self._connection = connection
        self._on_fatal = on_fatal
        self.loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._urgent: list[Write] = []
        self._lingering: list[Write] = []
        self._reminder: asyncio.TimerHandle | None = None
        self._gathering: asyncio.Handle | None = None
        self._kept: list[Write] = []
        self._num_handed_over = 0
        self._num_taken_care_of = 0
        self._pausing: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self.refusing: str | None = None
        """Why the disk takes nothing at present; None when it does."""
        self.num_commits = 0
        self.num_writes = 0
        self.on_commit: Callable[[float, int], None] | None = None
        """Told the seconds and the number of writes of each commit, in the writer's thread."""
        self._num_not_written_back = 0
        self._is_lost = False
        connection.execute(f"PRAGMA wal_autocheckpoint = {LONGEST_LOG_PAGES}")
        self._thread.start()

    @property
    def num_kept(self) -> int:
        """Writes that the disk has refused and that wait for it."""
        return len(self._kept)

    def put(self, writing: Writing, item: Any, done: Done | None = None, *, kept: bool = False) -> None:
        """Hands over one write. `done` gets its result, or the exception, on the loop.

        Raises `StorageUnavailable` at once while the disk refuses, unless it is to be kept.
        """
        if self.refusing is not None and not kept:
            raise _unavailable()
        write = Write(writing, item, done, kept)
        if done is None:
            self._lingering.append(write)
            if len(self._lingering) == 1:
                self._reminder = self.loop.call_later(LINGER_S, self._hand_over_all)
            elif len(self._lingering) == LINGER_MOST:
                self._hand_over_all()
            return
        self._urgent.append(write)
        if len(self._urgent) == 1:
            self._gathering = self.loop.call_soon(self._hand_over_when_quiet, 0, time.perf_counter() + GATHER_S)

    def _hand_over_when_quiet(self, num_before: int, latest: float) -> None:
        """Once a turn of the loop has brought no more of them: `num_before` there were when it began."""
        num_urgent = len(self._urgent)
        if num_urgent > num_before and time.perf_counter() < latest:
            self._gathering = self.loop.call_soon(self._hand_over_when_quiet, num_urgent, latest)
        else:
            self._hand_over_all()

    def _hand_over_all(self) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        writes = self._lingering + self._urgent
        self._lingering, self._urgent = [], []
        if not writes:
            return
        self._queue.put(writes)
        self._num_handed_over += 1
        if self._pausing is None:
            self._pausing = self.loop.call_later(GIVE_WAY_S, self._give_way)

    def _give_way(self) -> None:
        self._pausing = None
        if self._num_taken_care_of < self._num_handed_over:
            time.sleep(PAUSE_S)
            self._pausing = self.loop.call_later(GIVE_WAY_S, self._give_way)

    def write(self, writing: Writing, item: Any, *, kept: bool = False) -> asyncio.Future[Any]:
        """The same with a future for the outcome. Cancelling it takes nothing back."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self.put(writing, item, future, kept=kept)
        return future

    async def call(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """What `call` returns, once its writes are durable; its exception where it raises one, and nothing is written.

        Raises `StorageUnavailable`.
        """
        result: T = await self.write(CALLS, call)
        return result

    async def close(self, timeout_s: float) -> bool:
        """Writes what was handed over and ends the thread. False where the disk took not all of it in time."""
        self._hand_over_all()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)
        return not self._thread.is_alive() and not self._kept and not self._is_lost

    def _run(self) -> None:
        try:
            self._write_to_the_end()
        except BaseException as exc:
            self._is_lost, self.refusing = True, type(exc).__name__
            log.critical("writer_lost", exc_info=exc)
            if self._on_fatal is not None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self.loop.call_soon_threadsafe(self._on_fatal, "The ledger's writer ended; the log says why.")

    def _write_to_the_end(self) -> None:
        ending = False
        while not (ending and self._queue.empty()):
            handed_over, ended = self._gather()
            ending = ending or ended
            writes = self._kept + [write for some in handed_over for write in some]
            if writes:
                calls = [write for write in writes if write.writing is CALLS]
                others = [write for write in writes if write.writing is not CALLS]
                self._kept = [again for some in (others, calls) if some for again in self._commit(some)]
                self._num_taken_care_of += len(handed_over)
                self._write_back(len(writes))
            elif self.refusing is not None:
                self._commit([])  # is it back?
            if self.refusing is not None:
                if ending:
                    break
                time.sleep(RETRY_S)
        self._connection.close()

    def _write_back(self, num_writes: int) -> None:
        """Outside of commits: one that writes the log back takes three times as long as the others."""
        self._num_not_written_back += num_writes
        if self._num_not_written_back >= WRITE_BACK_MOST and self._queue.empty():
            self._num_not_written_back = 0
            with contextlib.suppress(
                *DISKS_FAULT, sqlite3.Error
            ):  # the rows are in the log; the disk's fault is the next commit's
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _gather(self) -> tuple[list[list[Write]], bool]:
        """All that waits, at least something unless the disk is to be asked again; and whether the end has come."""
        handed_over: list[list[Write]] = []
        ended = False
        block = self.refusing is None
        with contextlib.suppress(queue.Empty):
            while True:
                more = self._queue.get(block)
                block = False
                if more is None:
                    ended = True
                else:
                    handed_over.append(more)
        return handed_over, ended

    def _commit(self, writes: list[Write]) -> list[Write]:
        """Commits and tells; returns those that must be tried again."""
        kinds: dict[Writing, list[Write]] = {}
        for write in sorted(writes, key=rank):
            kinds.setdefault(write.writing, []).append(write)
        began = time.perf_counter()
        try:
            outcomes = self._apply(kinds)
            failpoint("committed")
        except Exception as exc:
            self._roll_back()
            for kind in kinds:
                kind.forget()
            if not isinstance(exc, DISKS_FAULT) and type(exc) is not sqlite3.DatabaseError:
                return self._set_apart(writes, exc)
            self._note_refusal(exc)
            self._tell([(write, _unavailable()) for write in writes if not write.kept])
            return [write for write in writes if write.kept]
        if self.refusing is not None:
            self.refusing = None
            log.info("storage_recovered", num_kept=len(self._kept))
        self.num_commits += 1
        self.num_writes += len(writes)
        if self.on_commit is not None:
            self.on_commit(time.perf_counter() - began, len(writes))
        self._tell(outcomes)
        return []

    def _apply(self, kinds: dict[Writing, list[Write]]) -> list[tuple[Write, Any]]:
        """Durable when it returns, each write with its outcome."""
        if self.refusing is None and len(kinds) == 1:
            ((kind, writes),) = kinds.items()
            items = [write.item for write in writes]
            if kind.is_statement(items):
                failpoint("in_commit")  # nothing is left between what it writes and its end
                return with_outcomes(writes, kind.apply(self._connection, items))
        self._connection.execute("BEGIN IMMEDIATE")
        if self.refusing is not None:
            self._connection.execute(PROBE, (0,))  # a transaction that writes nothing proves nothing
        outcomes: list[tuple[Write, Any]] = []
        for kind, writes in kinds.items():
            outcomes += with_outcomes(writes, kind.apply(self._connection, [write.item for write in writes]))
        failpoint("in_commit")
        self._connection.execute("COMMIT")
        return outcomes

    def _set_apart(self, writes: list[Write], exc: Exception) -> list[Write]:
        """One write cannot be applied, whatever the disk does: it fails alone, and the others are committed."""
        if len(writes) > 1:
            return [again for write in sorted(writes, key=rank) for again in self._commit([write])]
        log.error("write_failed", exc_info=exc)
        self._tell([(writes[0], exc)])
        return []

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error, MemoryError):  # SQLite rolls back by itself where it cannot go on
                self._connection.execute("ROLLBACK")

    def _note_refusal(self, exc: Exception) -> None:
        """One line when it begins; what follows until it ends says nothing new."""
        if self.refusing is None:
            log.error("storage_refuses", error=getattr(exc, "sqlite_errorname", type(exc).__name__), exc_info=exc)
        self.refusing = getattr(exc, "sqlite_errorname", None) or type(exc).__name__

    def _tell(self, outcomes: Iterable[tuple[Write, Any]]) -> None:
        told = [(write.done, outcome) for write, outcome in outcomes if write.done is not None]
        if told:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self.loop.call_soon_threadsafe(tell_all, told)


def _unavailable() -> StorageUnavailable:
    return StorageUnavailable("The ledger cannot be written right now.", retry_after_s=1)
