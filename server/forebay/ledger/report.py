"""What was used, summed up for people."""

from __future__ import annotations

import sqlite3
from typing import Any

from forebay.ledger.rows import CLIENTS

GROUPS = ("tenant", "key_id", "user_id", "model", "outcome", "day", "month")

_EXPRESSIONS = {
    "day": "strftime('%Y-%m-%d', reserved_at / 1000, 'unixepoch')",
    "month": "strftime('%Y-%m', reserved_at / 1000, 'unixepoch')",
}

SUMS = {
    "requests": "count(*)",
    "prompt_tokens": "sum(prompt_tokens)",
    "cached_tokens": "sum(cached_tokens)",
    "completion_tokens": "sum(completion_tokens)",
    "reasoning_tokens": "sum(reasoning_tokens)",
    "cost": "sum(CASE WHEN price_version IS NULL THEN 0 ELSE cost END)",
    "engine_seconds": "round(sum(prefill_us + decode_us) / 1e6, 3)",
    "recovered": "sum(recovered)",
}


def report(
    connection: sqlite3.Connection, group_by: list[str], since_ms: int = 0, until_ms: int | None = None
) -> list[dict[str, Any]]:
    """Settled sums by the named `GROUPS`, of requests that were admitted in [since, until), Unix milliseconds.

    `cost` is in micro-units of money and counts rows that had a price.
    """
    names = [_EXPRESSIONS.get(name, name) for name in group_by]
    columns = [f"{expression} AS {name}" for expression, name in zip(names, group_by, strict=True)]
    columns += [f"{expression} AS {name}" for name, expression in SUMS.items()]
    positions = ", ".join(str(position) for position in range(1, len(group_by) + 1))
    settled = f"FROM entries WHERE kind = 'settle' AND {CLIENTS} AND reserved_at >= ? AND reserved_at < ?"
    query = f"SELECT {', '.join(columns)} {settled}"
    if positions:
        query += f" GROUP BY {positions} ORDER BY {positions}"
    cursor = connection.execute(query, (since_ms, (1 << 62) if until_ms is None else until_ms))
    header = [*group_by, *SUMS]
    return [dict(zip(header, row, strict=True)) for row in cursor if row[len(group_by)]]
