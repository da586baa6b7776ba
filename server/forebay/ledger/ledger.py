"""The ledger of one server: every admitted request is in it once, and settled once, whatever happens."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from functools import partial

import orjson
import structlog

from forebay.errors import ConfigurationError, StorageUnavailable
from forebay.failpoints import failpoint
from forebay.ledger.account import NOTHING, Account, KeptSettlement, OnSettled
from forebay.ledger.prices import Price, PriceTable
from forebay.ledger.retention import drop_months
from forebay.ledger.rows import CacheKind, Reservation
from forebay.ledger.sweep import sweep
from forebay.ledger.tally import Stream, Tally
from forebay.ledger.writes import Also, LedgerWrites, tail
from forebay.observe.record import RequestRecord
from forebay.stores.database import Database
from forebay.stores.group_commit import PROBE
from forebay.stores.writing import CALLS
from forebay.types import Caller, Usage

HEAD_EVERY_S = 60.0
"""How old the newest signed head may be while rows are added."""

DROP_EVERY_S = 3600.0
"""How often months that need not be kept are looked for."""

log = structlog.get_logger(__name__)


class Ledger:
    """Lives on one event loop. `begin`, then `open` an account for each request, then `close`."""

    def __init__(
        self,
        database: Database,
        secret: bytes,
        prices: PriceTable | None,
        *,
        strict: bool,
        lease_s: float,
        keep_months: int | None = None,
        with_sink: bool = False,
    ) -> None:
        """`strict`: no token leaves before a checkpoint of it is durable. No request lives longer than `lease_s`.

        `keep_months`: whole months that are kept beside the current one; None keeps all. `with_sink`: rows that it has
        not taken are kept, too.
        """
        self._database = database
        self._writes = LedgerWrites(secret)
        self.prices = prices
        self._strict = strict
        self._lease_s = lease_s
        self._open: dict[str, Account] = {}
        self._keep_months = keep_months
        self._with_sink = with_sink
        self._head_due = 0.0
        self._drop_due = 0.0
        self._begun = False
        self.num_recovered = 0
        self.tally = Tally()
        self.totals: Sequence[tuple[int, str, str, int, int]] = ()
        """What was settled before `begin`: UTC day, tenant, key id, tokens, micro-units of money."""

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def open_streams(self) -> list[Stream]:
        """Of requests that are not settled."""
        return [stream for account in self._open.values() for stream in account.streams]

    def open_file(self) -> None:
        """Makes sure of the file, so that settings which cannot serve are found out early. Raises
        ConfigurationError."""
        self._database.open()
        try:
            self._database.connection.execute(PROBE, (0,))
            if self.prices is not None:
                _remember(self._database.connection, self.prices)
        except sqlite3.Error as exc:
            folder = self._database.folder
            raise ConfigurationError(f"Nothing can be written in the data folder {folder}: {exc}.") from exc

    def begin(self) -> None:
        """Settles what a crash left open, then takes requests, on the running loop. Raises ConfigurationError."""
        self.open_file()
        connection = self._database.connection
        began = time.perf_counter()
        self.num_recovered = sweep(connection, self._writes, lambda held, usage: _swept_cost(connection, held, usage))
        if self.num_recovered:
            log.warning(
                "ledger_recovered",
                num_requests=self.num_recovered,
                seconds=round(time.perf_counter() - began, 3),
            )
        self.totals = connection.execute("SELECT day, tenant, key_id, num_tokens, cost FROM daily_totals").fetchall()
        self._database.begin()
        self._begun = True

    async def open(
        self,
        caller: Caller,
        record: RequestRecord,
        *,
        at: int,
        prompt_tokens: int,
        completion_tokens: int,
        cost: int,
        on_settled: OnSettled,
        cache_kind: CacheKind | None = None,
        covered: int = 0,
    ) -> Account:
        """Holds the most that the request may come to; durable when it returns.

        `at`: Unix milliseconds, whose day's budgets pay. `on_settled` is told tokens and micro-units of money in the
        end, in any case. `covered`: completion tokens that are known to leave, so that they are durable with it.
        Raises `StorageUnavailable`.
        """
        assert record.model is not None
        price = self.price_of(record.model)
        price_version = None if price is None or self.prices is None else self.prices.version
        metadata = orjson.dumps(record.metadata).decode() if record.metadata else None
        # fmt: off
        held = Reservation(
            record.request_id, at, caller.tenant, caller.key_id, record.user, record.model, None, record.route,
            record.stream, prompt_tokens, completion_tokens, cost, price_version, cache_kind, record.client_request_id,
            record.retry_count, record.safety_identifier, metadata,
        )
        # fmt: on

        writer = self._database.writer
        account = Account(
            held,
            price,
            self._open,
            writer,
            self._writes,
            on_settled,
            self.tally,
            strict=self._strict,
            covered=covered,
            keep_settlement=record.keep_settlement,
        )
        failpoint("reserving")
        try:
            await writer.write(self._writes.reserve, (held, covered))
        except StorageUnavailable:
            account.void()
            raise
        except BaseException:
            # Cancelled, the row may be written all the same; then this settles it, and else it changes nothing.
            account.settle("client_gone", NOTHING, NOTHING)
            raise
        failpoint("reserved")
        return account

    def settle_with(self, settlement: KeptSettlement, also: Also) -> asyncio.Future[bool]:
        """Writes a settlement that was kept back, and in the same transaction something else. Tried until durable."""
        stored = self._database.writer.write(self._writes.post, settlement.posting._replace(also=also), kept=True)
        settlement.free()
        return stored

    def price_of(self, model: str) -> Price | None:
        """None where tokens have no price and engine time is the cost."""
        return None if self.prices is None else self.prices.of(model)

    def tick(self) -> None:
        """Called every second: ends leases, and from time to time signs a head and drops months."""
        if not self._begun:
            return
        oldest = time.monotonic() - self._lease_s
        for account in [account for account in self._open.values() if account.opened < oldest]:
            log.error("ledger_lease_ended", request_id=account.request_id)
            account.abandon()
        writer, now = self._database.writer, time.monotonic()
        if writer.refusing is not None:
            return
        if now >= self._head_due:
            self._head_due = now + HEAD_EVERY_S
            writer.put(CALLS, self._sign_head)
        if self._keep_months is not None and now >= self._drop_due:
            self._drop_due = now + DROP_EVERY_S
            drop = partial(drop_months, writes=self._writes, keep_months=self._keep_months, with_sink=self._with_sink)
            writer.put(CALLS, drop, self._dropped)

    def _dropped(self, has_more: object) -> None:
        if has_more is True:
            self._drop_due = 0.0  # with the next tick

    async def flush(self) -> None:
        """Returns when what was handed over so far is durable. Raises `StorageUnavailable`."""
        await self._database.write(lambda connection: None)

    async def close(self, timeout_s: float) -> None:
        """Signs the last head and waits until all is durable, for `timeout_s` seconds at most."""
        if self._begun:
            for account in list(self._open.values()):
                account.abandon()
            self._database.writer.put(CALLS, self._sign_head, kept=True)
        if not await self._database.close(timeout_s):
            log.error("ledger_not_flushed", num_open=self.num_open)

    def _sign_head(self, connection: sqlite3.Connection) -> None:
        seq, head, segment = tail(connection)
        if seq:
            at = time.time_ns() // 1_000_000
            self._writes.put_head(connection, seq, segment, head, at, closes_segment=False)


def _remember(connection: sqlite3.Connection, prices: PriceTable) -> None:
    """Rows name the table they were priced by, so a version means one table for ever."""
    text = orjson.dumps(prices.model_dump(), option=orjson.OPT_SORT_KEYS).decode()
    connection.execute("INSERT OR IGNORE INTO price_tables (version, prices) VALUES (?, ?)", (prices.version, text))
    (known,) = connection.execute("SELECT prices FROM price_tables WHERE version = ?", (prices.version,)).fetchone()
    if known != text:
        raise ConfigurationError(
            f"The price table's version {prices.version!r} was used with other prices before. "
            "Give the changed table a version of its own."
        )


def _swept_cost(connection: sqlite3.Connection, held: Reservation, usage: Usage) -> int:
    """By the table under which the request was admitted, and never more than such an answer's settlement would have
    come to: it may have given back the rest already. Engine time was lost with the process."""
    if held.price_version is None:
        return 0
    row = connection.execute("SELECT prices FROM price_tables WHERE version = ?", (held.price_version,)).fetchone()
    price = PriceTable.model_validate_json(row[0]).of(held.model)
    assert price is not None
    return price.least(usage, is_hit=held.cache_kind is not None)
