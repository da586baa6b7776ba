"""What the ledger holds: one row a reservation, one a settlement, one for what nobody is charged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from forebay.types import Usage
from forebay.values import value


@value
class EngineUse:
    """Microseconds in our queue and the engine's, in prefill, in decoding."""

    queue_us: int = 0
    prefill_us: int = 0
    decode_us: int = 0


Kind = Literal["reserve", "settle", "uncharged"]
CacheKind = Literal["exact", "semantic", "joined", "shadow"]
"""Who generated what a request got: the same one earlier, another one earlier, or the same one meanwhile. `shadow`: it
is no client's request; a hit's question is asked again, to learn whether the hit was right."""

CLIENTS = "cache_kind IS NOT 'shadow'"
"""In SQL: of settlements those of requests that somebody made."""


class Entry(NamedTuple):
    """One row of `entries`, but for its number and its hash; the columns in the order in which they are hashed.

    A `reserve` row holds the most that its request may come to, a `settle` row what its client is billed, an
    `uncharged` row what the engine generated beyond that. `at` and `reserved_at` are Unix milliseconds; windows of
    budgets and usage go by `reserved_at`. Cached tokens are part of the prompt's, reasoning tokens of the completion's.
    `cost` is in micro-units of money under the price table `price_version`; without one it is engine time, prefill and
    decoding, in microseconds. `cache_kind`: the answer is not of the request's own generating, its tokens are the
    original's, and its price is that of the cache; of a reservation: so it seemed then. `recovered`: settled by the
    sweep, at the last checkpoint.
    """

    request_id: str
    kind: Kind
    at: int
    reserved_at: int
    tenant: str
    key_id: str
    user_id: str | None
    model: str
    adapter: str | None
    route: str
    streamed: bool
    outcome: str
    finish_reason: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: int
    price_version: str | None
    cache_kind: CacheKind | None
    queue_us: int | None
    prefill_us: int | None
    decode_us: int | None
    client_request_id: str | None
    retry_count: int | None
    safety_identifier: str | None
    metadata: str | None
    recovered: bool

    def settled(
        self,
        at: int,
        outcome: str,
        finish_reason: str | None,
        billed: Usage,
        cost: int,
        cache_kind: CacheKind | None,
        use: EngineUse,
    ) -> Entry:
        """What a reservation came to. By place, because `_replace` takes twice as long."""
        # fmt: off
        return Entry(
            self.request_id, "settle", at, self.reserved_at, self.tenant, self.key_id, self.user_id, self.model,
            self.adapter, self.route, self.streamed, outcome, finish_reason, billed.prompt_tokens, billed.cached_tokens,
            billed.completion_tokens, billed.reasoning_tokens, cost, self.price_version, cache_kind, use.queue_us,
            use.prefill_us, use.decode_us, self.client_request_id, self.retry_count, self.safety_identifier,
            self.metadata, self.recovered,
        )
        # fmt: on


COLUMNS = ("seq", *Entry._fields, "hash")
"""Of the table, in its order."""

DAY_MS = 86_400_000


def day_of(unix_ms: int) -> int:
    """Days since 1970-01-01, UTC."""
    return unix_ms // DAY_MS


def entry_of(columns: Sequence[Any]) -> Entry:
    """A row of the table, without its number and its hash; SQLite knows no truth values."""
    entry = Entry(*columns)
    return entry._replace(streamed=bool(entry.streamed), recovered=bool(entry.recovered))
