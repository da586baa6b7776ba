"""The windows of budgets, each a run of UTC days."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal

WindowKind = Literal["day", "week", "month", "total"]

KINDS: tuple[WindowKind, ...] = ("day", "week", "month", "total")
DAY_MS = 86_400_000
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


@lru_cache(maxsize=1024)
def index_of(kind: WindowKind, day: int) -> int:
    """Which window of its kind the day is in; `day` counts from 1970-01-01, a Thursday. Weeks begin on Monday."""
    if kind == "day":
        return day
    if kind == "week":
        return (day + 3) // 7
    if kind == "month":
        there = date.fromordinal(EPOCH_ORDINAL + day)
        return there.year * 12 + there.month - 1
    return 0


def end_of(kind: WindowKind, day: int) -> datetime | None:
    """When the day's window ends and a new one begins; None for the one that never does."""
    there = date.fromordinal(EPOCH_ORDINAL + day)
    if kind == "day":
        end = there + timedelta(days=1)
    elif kind == "week":
        end = there + timedelta(days=7 - there.weekday())
    elif kind == "month":
        end = date(there.year + there.month // 12, there.month % 12 + 1, 1)
    else:
        return None
    return datetime(end.year, end.month, end.day, tzinfo=UTC)
