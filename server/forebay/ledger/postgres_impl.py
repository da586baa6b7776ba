"""The table in PostgreSQL in which the settled rows of a fleet's servers come together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from forebay.errors import ConfigurationError
from forebay.ledger.rows import Entry
from forebay.ledger.sink import SinkFault, SinkRow

CONNECT_S = 5
LOCK = 0x666F7265626179
"""Held while the tables are made or changed, so that servers which start together do it once; "forebay" in ASCII."""

MIGRATIONS = (
    """
    CREATE TABLE forebay_ledger (
        replica_id text NOT NULL,
        seq bigint NOT NULL,
        hash bytea NOT NULL,
        request_id text NOT NULL,
        kind text NOT NULL,
        at timestamptz NOT NULL,
        reserved_at timestamptz NOT NULL,
        tenant text NOT NULL,
        key_id text NOT NULL,
        user_id text,
        model text NOT NULL,
        adapter text,
        route text NOT NULL,
        streamed boolean NOT NULL,
        outcome text NOT NULL,
        finish_reason text,
        prompt_tokens bigint NOT NULL,
        cached_tokens bigint NOT NULL,
        completion_tokens bigint NOT NULL,
        reasoning_tokens bigint NOT NULL,
        cost bigint NOT NULL,
        reserved_tokens bigint NOT NULL,
        reserved_cost bigint NOT NULL,
        price_version text,
        cache_kind text,
        queue_us bigint,
        prefill_us bigint,
        decode_us bigint,
        client_request_id text,
        retry_count bigint,
        safety_identifier text,
        metadata jsonb,
        recovered boolean NOT NULL,
        PRIMARY KEY (replica_id, seq, hash)
    );
    CREATE INDEX forebay_ledger_usage ON forebay_ledger (tenant, reserved_at);
    """,
)
"""Scripts that take the tables from version i to i + 1. What was released is never changed, only added to.

A row's hash is part of its key: after a ledger was restored from a backup, other rows come under the same numbers.
"""

TIMES = ("at", "reserved_at")
TYPES = {
    **dict.fromkeys(Entry._fields, "text"),
    **dict.fromkeys(("streamed", "recovered"), "boolean"),
    **dict.fromkeys((*TIMES, "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens"), "bigint"),
    **dict.fromkeys(
        ("cost", "reserved_tokens", "reserved_cost", "queue_us", "prefill_us", "decode_us", "retry_count"), "bigint"
    ),
    "metadata": "jsonb",
}
"""Of a row's columns as they are sent, in JSON: to take it apart is PostgreSQL's work and not this process's."""

ADD_ROWS = f"""
INSERT INTO forebay_ledger (replica_id, seq, hash, {", ".join(TYPES)})
SELECT %s, seq, decode(hash, 'hex'), {", ".join(f"to_timestamp({n} / 1000.0)" if n in TIMES else n for n in TYPES)}
FROM json_to_recordset(%s::json) AS (seq bigint, hash text, {", ".join(f"{n} {kind}" for n, kind in TYPES.items())})
ON CONFLICT DO NOTHING
""".encode()  # noqa: S608 - names of ours

FAULTS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (errors.QueryCanceled, "timeout"),
    (errors.InsufficientPrivilege, "permission"),
    (errors.InvalidAuthorizationSpecification, "refused"),
    (errors.ReadOnlySqlTransaction, "read_only"),
    (errors.DiskFull, "full"),
    (psycopg.ProgrammingError, "schema"),
    (psycopg.OperationalError, "unreachable"),
    (psycopg.InterfaceError, "unreachable"),
    (psycopg.Error, "failed"),
)
"""The first that fits counts. The words of PostgreSQL stay here: they name hosts and users."""


class PostgresTable:
    """One connection, made when it is asked for. Lives on one event loop."""

    def __init__(self, url: str) -> None:
        """Connects to nothing yet. Raises ConfigurationError for what is no address of a database."""
        try:
            conninfo_to_dict(url)
        except psycopg.Error:
            # Its words quote the address, and with it the password.
            raise ConfigurationError(
                "FOREBAY_LEDGER_POSTGRES_URL must be like postgresql://user:password@host:5432/database."
            ) from None
        # What it warns of in words of its own, again and again while a server hangs, is a SinkFault here.
        logging.getLogger("psycopg").setLevel(logging.CRITICAL)
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def connect(self, replica_id: str) -> int:
        """Connects and brings the tables to this version. The newest row of the replica's there; 0 if there is none.

        Raises SinkFault.
        """
        with _faults():
            connection = self._connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                prepare_threshold=None,  # a pooler between us may give each statement another server
                application_name="forebay",
            )
            await _migrate(connection)
            query = "SELECT max(seq) FROM forebay_ledger WHERE replica_id = %s"
            (seq,) = await (await connection.execute(query, (replica_id,))).fetchone() or (None,)
            return seq or 0

    async def add(self, replica_id: str, rows: Sequence[SinkRow]) -> None:
        """All or none; those that are there already stay as they are. Raises SinkFault."""
        assert self._connection is not None, "connect() comes first"
        with _faults():
            await self._connection.execute(ADD_ROWS, (replica_id, _json(rows)))

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def _migrate(connection: psycopg.AsyncConnection[Any]) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        found = await (await connection.execute("SELECT to_regclass('forebay_ledger_version')")).fetchone()
        version = 0
        if found is not None and found[0] is not None:
            (version,) = await (await connection.execute("SELECT version FROM forebay_ledger_version")).fetchone() or (
                0,
            )
        if version > len(MIGRATIONS):
            raise SinkFault("schema")
        if version == len(MIGRATIONS):
            return
        if version == 0:
            await connection.execute("CREATE TABLE forebay_ledger_version (version integer NOT NULL)")
            await connection.execute("INSERT INTO forebay_ledger_version VALUES (0)")
        for script in MIGRATIONS[version:]:
            await connection.execute(script.encode())
        await connection.execute("UPDATE forebay_ledger_version SET version = %s", (len(MIGRATIONS),))


def _json(rows: Sequence[SinkRow]) -> str:
    records = []
    for seq, *columns, digest in rows:
        record = dict(zip(Entry._fields, columns, strict=True), seq=seq, hash=digest.hex())
        if (metadata := record["metadata"]) is not None:
            record["metadata"] = orjson.Fragment(metadata)
        records.append(record)
    text = orjson.dumps(records)
    if b"\\u0000" in text:
        text = orjson.dumps(_without_nul(orjson.loads(text)))
    return text.decode()


def _without_nul(value: Any) -> Any:
    """PostgreSQL's texts cannot hold U+0000, which clients' words may: U+FFFD stands for it there."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, TimeoutError, OSError) as exc:
        kind = next((kind for foreign, kind in FAULTS if isinstance(exc, foreign)), "unreachable")
        if kind == "unreachable" and "FATAL" in str(exc):
            kind = "refused"  # the server has answered, and wants nobody of that name, password or database
        raise SinkFault(kind) from exc
