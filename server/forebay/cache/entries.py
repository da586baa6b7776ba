"""One stored answer, and how it is written down: compact, bounded in size, signed."""

from __future__ import annotations

import hmac
import math
import random
import zlib
from collections.abc import Sequence
from typing import Any

import orjson

from forebay.cache.scope import derived
from forebay.engines.mailbox import merge_deltas
from forebay.types import Delta, FinishReason, Usage
from forebay.values import value

FORMAT = 2
MAC_BYTES = 16
MAX_DELTAS = 16
"""Into which an answer is merged: each costs a hit some microseconds to read and more to send."""

JITTER = 0.1
"""Part of its life by which an entry's end is moved forward, so that what was stored together does not end together."""

OVERHEAD_BYTES = 512
"""What a store keeps beside the bytes of an entry: indexes, names, counters."""

MAX_EXPANSION = 8
"""How many times larger than the largest body an entry may be before it is compressed."""


@value
class Entry:
    """An answer with what it answered. `id` is the exact key of its question; `scope` the key of its scope.

    `deltas` are those of one choice, maybe merged; `usage` is what they came to. Times are Unix milliseconds.
    `embedding`: the text's, of unit length, float32 in little-endian order; None: for the exact tier only.
    """

    id: str
    scope: str
    text: str
    tenant: str
    model: str
    epoch: int
    created_at: int
    expires_at: int
    deltas: tuple[Delta, ...]
    usage: Usage
    finish_reason: FinishReason
    embedding: bytes | None = None


@value
class Sealed:
    """An entry as stores hold it: what they look for and count beside what they do not read.

    `body` is signed together with all other fields.
    """

    id: str
    scope: str
    tenant: str
    model: str
    epoch: int
    created_at: int
    expires_at: int
    embedding: bytes | None
    body: bytes

    @property
    def num_bytes(self) -> int:
        """What it counts as in quotas."""
        embedding = self.embedding
        return OVERHEAD_BYTES + len(self.body) + (0 if embedding is None else len(embedding))


class Seal:
    """Makes and opens sealed entries. `num_refused` counts those that were not sealed with this secret."""

    def __init__(self, secret: bytes, *, max_bytes: int) -> None:
        """`max_bytes`: of a body, sealed."""
        self._secret = derived(secret, "entries")
        self._max_bytes = max_bytes
        self.num_refused = 0

    def close(self, entry: Entry) -> Sealed | None:
        """None for an entry that cannot be kept: too large, or half a character in its text."""
        usage, rows = entry.usage, [_row(delta) for delta in _merged(entry.deltas)]
        numbers = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens)
        try:
            packed = orjson.dumps([entry.text, entry.finish_reason, numbers, rows])
        except orjson.JSONEncodeError:
            return None
        if len(packed) > self._max_bytes * MAX_EXPANSION:
            return None
        body = zlib.compress(packed, 1)
        if len(body) + MAC_BYTES > self._max_bytes:
            return None
        return Sealed(
            entry.id,
            entry.scope,
            entry.tenant,
            entry.model,
            entry.epoch,
            entry.created_at,
            entry.expires_at,
            entry.embedding,
            self._mac(entry, body) + body,
        )

    def open(self, sealed: Sealed) -> Entry | None:
        """None where anything of it was not written by us; that is counted."""
        mac, body = sealed.body[:MAC_BYTES], sealed.body[MAC_BYTES:]
        try:
            is_ours = hmac.compare_digest(mac, self._mac(sealed, body))
        except orjson.JSONEncodeError:  # a number of more than 64 bits
            is_ours = False
        if not is_ours:
            self.num_refused += 1
            return None
        text, finish_reason, usage, rows = orjson.loads(zlib.decompress(body))
        return Entry(
            sealed.id,
            sealed.scope,
            text,
            sealed.tenant,
            sealed.model,
            sealed.epoch,
            sealed.created_at,
            sealed.expires_at,
            tuple(map(_delta, rows)),
            Usage(*usage),
            finish_reason,
            sealed.embedding,
        )

    def _mac(self, sealed: Entry | Sealed, body: bytes) -> bytes:
        """A JSON array tells where it ends and how long what follows it is, so no two entries have one message."""
        head = orjson.dumps(
            [
                *(FORMAT, sealed.id, sealed.scope, sealed.tenant, sealed.model, sealed.epoch),
                *(sealed.created_at, sealed.expires_at),
                None if sealed.embedding is None else len(sealed.embedding),
            ]
        )
        message = head + (sealed.embedding or b"") + body
        return hmac.digest(self._secret, message, "sha256")[:MAC_BYTES]


def expiry(created_at: int, ttl_s: float) -> int:
    """When an entry ends, Unix milliseconds."""
    return created_at + round(ttl_s * 1000 * (1 - JITTER * random.random()))


def _merged(deltas: Sequence[Delta]) -> Sequence[Delta]:
    """As many as may be, of about as many each."""
    if len(deltas) <= MAX_DELTAS:
        return deltas
    size = math.ceil(len(deltas) / MAX_DELTAS)
    return [merge_deltas(list(deltas[begin : begin + size])) for begin in range(0, len(deltas), size)]


def _row(delta: Delta) -> tuple[Any, ...]:
    """What is replayed of it."""
    last = (delta.finish_reason, delta.stop_reason, delta.num_cached_tokens)
    return (delta.text, delta.token_ids, delta.reasoning, delta.num_reasoning_tokens, *last)


def _delta(row: Sequence[Any]) -> Delta:
    text, token_ids, reasoning, num_reasoning, finish, stop, num_cached = row
    return Delta(
        0,
        text,
        tuple(token_ids),
        finish_reason=finish,
        stop_reason=stop,
        num_cached_tokens=num_cached,
        reasoning=reasoning,
        num_reasoning_tokens=num_reasoning,
    )
