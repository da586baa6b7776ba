"""What was used, in buckets of time and by group: the sums behind the usage API."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from forebay.errors import InvalidRequest, RateLimited
from forebay.ledger.rows import CLIENTS
from forebay.stores.database import Database

MAX_RESULTS = 10_000
"""Groups in all buckets of one answer together."""

MAX_READ_S = 10.0
RETRY_S = 2.0
NUM_READERS = 2
"""Threads that sum up at a time, each for another tenant; further queries wait."""

MAX_WAITING = 4
"""Queries of one tenant that run or wait; it is told to come back with more, and so holds nobody else up."""

CHECK_EVERY = 100_000
"""Steps of SQLite's machine, some milliseconds, between two looks at the clock."""

METADATA = "metadata."
COLUMNS = {"project_id": "tenant", "user_id": "user_id", "api_key_id": "key_id", "model": "model"}
"""Groups and filters by OpenAI's names; a tenant is a project. Beside them stands `metadata.<key>`."""

SUMS = ("count(*)", "sum(prompt_tokens)", "sum(cached_tokens)", "sum(completion_tokens)", "sum(reasoning_tokens)")


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Settled requests that were admitted in [start, end), Unix seconds, in at most `limit` buckets of `width` seconds.

    Buckets begin at whole minutes, hours or days, UTC, but for the first, which begins at `start`. `filters`: of each
    column the values that count.
    """

    start: int
    end: int
    width: int
    limit: int
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] | None = None

    @property
    def buckets(self) -> list[tuple[int, int]]:
        """Begin and end of each, in order."""
        found: list[tuple[int, int]] = []
        begin = self.start
        while begin < self.end and len(found) < self.limit:
            end = min((begin // self.width + 1) * self.width, self.end)
            found.append((begin, end))
            begin = end
        return found


@dataclass(frozen=True, slots=True)
class Tokens:
    """The sums of one group in one bucket."""

    num_requests: int
    prompt: int
    cached: int
    completion: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one group cost in one bucket: millionths of the currency, or of `engine_seconds` without a price."""

    micros: int
    currency: str
    num_tokens: int


Group = tuple[str | None, ...]
"""The values of a query's `group_by`; None where a request has none."""

ENGINE_SECONDS = "engine_seconds"


T = TypeVar("T")
S = TypeVar("S", Tokens, Cost)


class UsageReader:
    """Sums up committed rows in threads, off the way of requests."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers = asyncio.Semaphore(NUM_READERS)
        self._lines: dict[str, _Line] = {}

    async def tokens(self, query: UsageQuery, tenant: str) -> list[list[tuple[Group, Tokens]]]:
        """Of each of the query's buckets its groups, in order of their values. `tenant`: who asks.

        Raises `InvalidRequest` where that is more than one answer may be, `RateLimited`, `StorageUnavailable`.
        """
        return await self._read(tenant, lambda connection: _by_bucket(query, _tokens(connection, query)))

    async def costs(self, query: UsageQuery, tenant: str) -> list[list[tuple[Group, Cost]]]:
        """The same of costs; a group has one for each currency."""
        return await self._read(tenant, lambda connection: _by_bucket(query, _costs(connection, query)))

    async def _read(self, tenant: str, call: Callable[[sqlite3.Connection], T]) -> T:
        def reading(connection: sqlite3.Connection) -> T:
            ends = time.monotonic() + MAX_READ_S
            connection.set_progress_handler(lambda: time.monotonic() > ends, CHECK_EVERY)
            try:
                return call(connection)
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                    raise
                raise _too_much(f"takes more than {MAX_READ_S:g} s") from exc

        line = self._lines.setdefault(tenant, _Line())
        if line.num == MAX_WAITING:
            raise RateLimited(
                f"Your tenant has {MAX_WAITING} usage queries under way: ask again when they are answered.",
                retry_after_s=RETRY_S,
            )
        line.num += 1
        try:
            async with line.turn, self._readers:
                return await self._database.read(reading)
        finally:
            line.num -= 1
            if not line.num:
                del self._lines[tenant]


@dataclass(slots=True)
class _Line:
    """Of one tenant's queries: `num` run or wait for their turn."""

    num: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


def _tokens(connection: sqlite3.Connection, query: UsageQuery) -> Iterator[tuple[int, Group, Tokens]]:
    num_groups = len(query.group_by)
    for bucket, *columns in _rows(connection, query, ()):
        yield bucket, tuple(columns[:num_groups]), Tokens(*columns[num_groups:])


def _costs(connection: sqlite3.Connection, query: UsageQuery) -> Iterator[tuple[int, Group, Cost]]:
    """Price tables may share a currency."""
    currencies: dict[str | None, str] = {None: ENGINE_SECONDS}
    for version, prices in connection.execute("SELECT version, prices FROM price_tables"):
        currencies[version] = orjson.loads(prices)["currency"]
    num_groups = len(query.group_by)
    merged: dict[tuple[int, Group, str], list[int]] = {}
    for bucket, *columns, cost in _rows(connection, query, ("price_version",), "sum(cost)"):
        group, version, sums = tuple(columns[:num_groups]), columns[num_groups], Tokens(*columns[num_groups + 1 :])
        total = merged.setdefault((bucket, group, currencies[version]), [0, 0])
        total[0] += cost
        total[1] += sums.prompt + sums.completion
    for (bucket, group, currency), (micros, num_tokens) in merged.items():
        yield bucket, group, Cost(micros, currency, num_tokens)


def _rows(
    connection: sqlite3.Connection, query: UsageQuery, more_groups: tuple[str, ...], *more_sums: str
) -> Iterator[tuple[Any, ...]]:
    """The number of the bucket by its width since 1970, the groups' values, the sums."""
    width_ms = query.width * 1000
    columns = ["reserved_at / ?"]
    parameters: list[Any] = [width_ms]
    for name in query.group_by:
        if name.startswith(METADATA):
            columns.append("(SELECT value FROM json_each(entries.metadata) WHERE key = ?)")
            parameters.append(name.removeprefix(METADATA))
        else:
            columns.append(COLUMNS[name])
    columns += more_groups
    # Named as the index is, so that SQLite sees that it holds these rows.
    terms = ["kind <> 'reserve'", "kind = 'settle'", CLIENTS, "reserved_at >= ?", "reserved_at < ?"]
    buckets = query.buckets
    parameters += [query.start * 1000, buckets[-1][1] * 1000]
    for name, allowed in (query.filters or {}).items():
        terms.append(f"{COLUMNS[name]} IN ({', '.join('?' * len(allowed))})")
        parameters += allowed
    order = ", ".join(str(position + 1) for position in range(len(columns)))
    selected = ", ".join((*columns, *SUMS, *more_sums))
    where = " AND ".join(terms)
    cursor = connection.execute(
        f"SELECT {selected} FROM entries WHERE {where} GROUP BY {order} ORDER BY {order}",  # noqa: S608 - names of ours
        parameters,
    )
    for number, row in enumerate(cursor):
        if number == MAX_RESULTS:
            raise _too_much(f"has more than {MAX_RESULTS} results")
        yield row


def _by_bucket(query: UsageQuery, results: Iterable[tuple[int, Group, S]]) -> list[list[tuple[Group, S]]]:
    found: dict[int, list[tuple[Group, S]]] = {begin // query.width: [] for begin, _ in query.buckets}
    for bucket, group, sums in results:
        found[bucket].append((group, sums))
    return list(found.values())


def _too_much(what: str) -> InvalidRequest:
    return InvalidRequest(f"This {what}: ask for fewer buckets with `limit`, or for fewer groups.", param="limit")
