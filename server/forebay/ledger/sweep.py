"""After a crash: what was open is settled at its last checkpoint, before anything new begins."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from forebay.ledger.rows import EngineUse, Reservation
from forebay.ledger.writes import LedgerWrites, Posting
from forebay.types import Usage

OPEN = "SELECT reservation, completion_tokens FROM open_requests ORDER BY request_id"

UNKNOWN_USE: Mapping[str, Any] = dict.fromkeys(("queue_us", "prefill_us", "decode_us"))

CostOf = Callable[[Reservation, Usage], int]


def sweep(connection: sqlite3.Connection, writes: LedgerWrites, cost_of: CostOf) -> int:
    """Settles every open reservation, in one transaction. Returns how many there were.

    Billed are the tokens of the last checkpoint, and the prompt if there were any: without a checkpoint at most a few
    tokens left, and without a token there is nothing to pay for.
    """
    now = time.time_ns() // 1_000_000
    settlements = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for reservation, num_tokens in connection.execute(OPEN).fetchall():
            held = Reservation(*orjson.loads(reservation))
            usage = Usage(held.prompt_tokens if num_tokens else 0, num_tokens)
            cost = cost_of(held, usage) if num_tokens else 0
            row = held.settled(now, "crashed", None, usage, cost, held.cache_kind, EngineUse())
            settlements.append(Posting(row._replace(**UNKNOWN_USE, recovered=True)))
        writes.post.apply(connection, settlements)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return len(settlements)
