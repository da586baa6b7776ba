"""The ledger against the engine's own counters: whether every token that was generated is in a row, and no other."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import structlog

from forebay.errors import StorageUnavailable
from forebay.ledger.ledger import Ledger
from forebay.ledger.rows import CLIENTS
from forebay.ledger.tally import add, work_of
from forebay.stores.database import Database
from forebay.stores.sqlite import open_for_reading, storage_errors
from forebay.types import NO_WORK, EngineWork

LATE_S = 0.2
"""What a settlement may take from being handed over to the file, where it waits for an answer to be kept with it."""

READ_EVERY_S = 60.0
REFRESH_S = 2.0
"""What a scrape waits for it."""

SUMS = "count(*), sum(prompt_tokens), sum(cached_tokens), sum(completion_tokens)"
KIND = "CASE WHEN cache_kind IS NULL THEN kind ELSE 'hit' END"
NEW_ROWS = f"""
SELECT {KIND}, {SUMS} FROM entries WHERE seq > ? AND kind <> 'reserve' AND {CLIENTS} GROUP BY 1
"""  # noqa: S608 - ours
LAST_ROWS = f"""
SELECT {SUMS} FROM (SELECT * FROM entries ORDER BY seq DESC LIMIT ?) WHERE cache_kind IS NULL
"""  # noqa: S608 - ours

Counted = Literal["settle", "uncharged", "hit"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RowSums:
    """Of rows of one kind."""

    num_rows: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was compared, since the process began.

    `engine`: its counters. `settled`, `in_flight`: its work for requests that are settled and that are not. `left`:
    what it did for a request after that was cut short and settled. `read_again` and `left_unread`: prompt tokens that
    it read more than once, or not at all (`ledger/tally.py`). `hits`: rows of answers from the cache, for which no
    engine did anything. `recovered`: rows of the sweep, whose tokens an earlier
    process's engine generated. `drift`, by `prompt` and `generated`: what the engine has and the ledger has not; 0
    unless tokens were lost, doubled or invented.
    """

    engine: EngineWork
    settled: EngineWork
    in_flight: EngineWork
    left: EngineWork
    num_in_flight: int
    read_again: int
    left_unread: int
    billed: RowSums
    uncharged: RowSums
    hits: RowSums
    recovered: RowSums
    drift: Mapping[str, int]


class Reconciliation:
    """Lives on the event loop; reads the rows that were added since the last time."""

    def __init__(self, database: Database, ledger: Ledger, counted: Callable[[], EngineWork]) -> None:
        """`counted`: the engine's counters since the process began, see `EngineHost.work`."""
        self._database = database
        self._ledger = ledger
        self._counted = counted
        self._lock = asyncio.Lock()
        self._rows: dict[Counted, RowSums] = {"settle": RowSums(), "uncharged": RowSums(), "hit": RowSums()}
        self._recovered = RowSums()
        self._read_due = float("inf")
        self._background: asyncio.Task[None] | None = None
        self.last: Reconciled | None = None
        self.last_seq = 0
        """The ledger's newest row, as last read."""

    def begin(self) -> None:
        """After the ledger's beginning and before the first request: what the file holds is of earlier processes."""
        with storage_errors(), closing(open_for_reading(self._database.folder)) as connection:
            self.last_seq = _last_seq(connection)
            sums = connection.execute(LAST_ROWS, (self._ledger.num_recovered,)).fetchone()
        self._recovered = RowSums(*(value or 0 for value in sums))
        self._read_due = time.monotonic() + READ_EVERY_S

    def tick(self) -> None:
        """Called every second: now and then reads new rows, so that no scrape has to read very many."""
        if time.monotonic() >= self._read_due and (self._background is None or self._background.done()):
            self._background = asyncio.create_task(self.refresh(), name="reconcile")

    async def close(self) -> None:
        if self._background is not None:
            self._background.cancel()
            await asyncio.wait([self._background])

    async def refresh(self) -> None:
        """Runs, unless the disk refuses or takes its time: then `last` stays what it was."""
        try:
            async with asyncio.timeout(REFRESH_S):
                await self.run()
        except (StorageUnavailable, TimeoutError):
            log.debug("not_reconciled")

    async def run(self) -> Reconciled:
        """Compares. Exact where nothing is in flight; else but for tokens between an engine and its streams.

        Raises `StorageUnavailable` while the disk refuses.
        """
        async with self._lock:
            self._read_due = time.monotonic() + READ_EVERY_S
            tally, ledger = self._ledger.tally, self._ledger
            engine, settled, left = self._counted(), tally.work, tally.left
            in_flight, num_in_flight = work_of(ledger.open_streams), ledger.num_open
            read_again, left_unread = tally.read_again, tally.left_unread
            prompt = -tally.unexplained
            generated = tally.num_streamed - tally.completion_tokens
            missing_prompt, missing_completion = await self._missing_rows()
        beyond = add(engine, NO_WORK, less=add(add(settled, in_flight), left))
        untold = settled.untold_prompt_tokens + in_flight.untold_prompt_tokens
        prompt += beyond.prompt_tokens - min(max(beyond.prompt_tokens, 0), untold)
        generated += beyond.generated_tokens
        self.last = Reconciled(
            engine=engine,
            settled=settled,
            in_flight=in_flight,
            left=left,
            num_in_flight=num_in_flight,
            read_again=read_again,
            left_unread=left_unread,
            billed=self._rows["settle"],
            uncharged=self._rows["uncharged"],
            hits=self._rows["hit"],
            recovered=self._recovered,
            drift={"prompt": prompt + missing_prompt, "generated": generated + missing_completion},
        )
        return self.last

    async def _missing_rows(self) -> tuple[int, int]:
        """Uncached prompt and completion tokens that are settled by now and in no row; negative those of rows that
        nobody has settled."""
        before = self._handed()
        await self._read_rows()
        if any(have < least for least, have in zip(before, self._recorded(), strict=True)):
            await asyncio.sleep(LATE_S)
            await self._read_rows()
        recorded, now = self._recorded(), self._handed()
        prompt, completion = (
            min(0, after - have) if have > least else least - have
            for least, have, after in zip(before, recorded, now, strict=True)
        )
        return prompt, completion

    def _handed(self) -> tuple[int, int]:
        tally = self._ledger.tally
        return tally.prompt_tokens - tally.cached_tokens, tally.completion_tokens

    def _recorded(self) -> tuple[int, int]:
        kinds = self._rows["settle"], self._rows["uncharged"]
        return (
            sum(rows.prompt_tokens - rows.cached_tokens for rows in kinds),
            sum(rows.completion_tokens for rows in kinds),
        )

    async def _read_rows(self) -> None:
        await self._ledger.flush()
        seq = self.last_seq
        found, self.last_seq = await self._database.read(lambda file: (_sums_after(file, seq), _last_seq(file)))
        self.last_seq = max(self.last_seq, seq)  # old rows may be gone, newest ones included
        for kind, more in found.items():
            have = self._rows[kind]
            self._rows[kind] = RowSums(
                have.num_rows + more.num_rows,
                have.prompt_tokens + more.prompt_tokens,
                have.cached_tokens + more.cached_tokens,
                have.completion_tokens + more.completion_tokens,
            )


def _sums_after(connection: sqlite3.Connection, seq: int) -> dict[Counted, RowSums]:
    return {kind: RowSums(*sums) for kind, *sums in connection.execute(NEW_ROWS, (seq,))}


def _last_seq(connection: sqlite3.Connection) -> int:
    (seq,) = connection.execute("SELECT max(seq) FROM entries").fetchone()
    return seq or 0
