"""The chain of hashes over the ledger's rows, and the signatures of where it stood."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from forebay.ledger.rows import DAY_MS, Entry, day_of

GENESIS = bytes(32)


def link(previous: bytes, seq: int, entry: Entry) -> bytes:
    """SHA-256 of the hash before and of the row as a JSON array: `seq`, then the columns of `Entry` in their order.

    That is how anybody checks an export: `sha256(previous + json)`, the JSON without spaces and in UTF-8.
    """
    return hashlib.sha256(previous + orjson.dumps((seq, *entry))).digest()


def segment_of(unix_ms: int) -> str:
    """The month, UTC, as `2026-11`: rows are kept and dropped by it."""
    return _month_of(day_of(unix_ms))


@lru_cache(maxsize=4)
def _month_of(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m")


def sign(secret: bytes, segment: str, seq: int, head: bytes) -> bytes:
    """HMAC-SHA256 over what a head says: that the chain stood at `head` after row `seq`."""
    return hmac.new(secret, f"forebay-ledger-head:{segment}:{seq}:".encode() + head, hashlib.sha256).digest()
