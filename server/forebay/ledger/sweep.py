"""After a crash: what was open is settled at its last checkpoint, before anything new begins."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from forebay.ledger.rows import COLUMNS, Entry, entry_of
from forebay.ledger.writes import LedgerWrites, Posting
from forebay.types import Usage

OPEN = f"""
SELECT {", ".join(f"entries.{name}" for name in COLUMNS[1:-1])}, open_requests.completion_tokens
FROM open_requests JOIN entries ON entries.request_id = open_requests.request_id AND entries.kind = 'reserve'
ORDER BY entries.seq
"""  # noqa: S608 - column names of ours

CostOf = Callable[[Entry, Usage], int]


def sweep(connection: sqlite3.Connection, writes: LedgerWrites, cost_of: CostOf) -> int:
    """Settles every open reservation, in one transaction. Returns how many there were.

    Billed are the tokens of the last checkpoint, and the prompt if there were any: without a checkpoint at most a few
    tokens left, and without a token there is nothing to pay for.
    """
    now = time.time_ns() // 1_000_000
    settlements = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for *columns, num_tokens in connection.execute(OPEN).fetchall():
            held = entry_of(columns)
            usage = Usage(held.prompt_tokens if num_tokens else 0, num_tokens)
            row = held._replace(
                kind="settle",
                at=now,
                outcome="crashed",
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cost=cost_of(held, usage) if num_tokens else 0,
                recovered=True,
            )
            settlements.append(Posting(row))
        writes.post.apply(connection, settlements)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return len(settlements)
