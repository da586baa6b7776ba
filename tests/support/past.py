"""Ledgers with a past that no server of a test's could have had: requests of other days, tenants and prices."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

from forebay.ledger.chain import segment_of
from forebay.ledger.prices import PriceTable
from forebay.ledger.rows import Entry, Reservation
from forebay.ledger.writes import LedgerWrites, Posting
from forebay.stores.secret import read_or_create_secret
from forebay.stores.sqlite import open_file
from forebay.tenants.administration import create_key
from forebay.tenants.authority import Administrator


def settled(reserved_at: int, **columns: Any) -> Entry:
    """A settled request, admitted at `reserved_at` (Unix ms)."""
    entry = Entry(
        request_id=secrets.token_hex(16), kind="settle", at=reserved_at + 1000, reserved_at=reserved_at,
        tenant="default", key_id="anonymous", user_id=None, model="scripted", adapter=None,
        route="/v1/chat/completions", streamed=False, outcome="complete", finish_reason="stop", prompt_tokens=0,
        cached_tokens=0, completion_tokens=0, reasoning_tokens=0, cost=0, reserved_tokens=0, reserved_cost=0,
        price_version=None, cache_kind=None,
        queue_us=0, prefill_us=0, decode_us=0, client_request_id=None, retry_count=0, safety_identifier=None,
        metadata=None, recovered=False,
    )  # fmt: skip
    return entry._replace(**columns)


def write_past(folder: Path, requests: Sequence[Entry], prices: Sequence[PriceTable] = ()) -> None:
    """Reserved and settled, month by month in the order given; no server may use the folder."""
    writes = LedgerWrites(read_or_create_secret(folder))
    with closing(open_file(folder)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for table in prices:
            connection.execute("INSERT INTO price_tables VALUES (?, ?)", (table.version, table.model_dump_json()))
        for _, month in groupby(requests, key=lambda entry: segment_of(entry.at)):
            entries = list(month)
            writes.reserve.apply(connection, [(_reservation(entry), 0) for entry in entries])
            writes.post.apply(connection, [Posting(entry) for entry in entries])
        connection.execute("COMMIT")


def _reservation(entry: Entry) -> Reservation:
    return Reservation(**{name: getattr(entry, name) for name in Reservation._fields})._replace(at=entry.reserved_at)


def make_key(folder: Path, tenant: str, **fields: Any) -> tuple[str, str]:
    """The id and the secret of a new key."""
    with closing(open_file(folder)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        key, secret = create_key(connection, Administrator.at_console("tests"), tenant, fields)
        connection.execute("COMMIT")
    return key.id, secret
