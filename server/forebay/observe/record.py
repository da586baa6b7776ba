"""What is known of one HTTP request; filled on its way, logged and measured once, at its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from forebay.patience import Patience
from forebay.types import Usage

PROBES = frozenset({"/live", "/ready", "/health"})
SCRAPES = frozenset({"/metrics", "/stats"})
"""Routes that are asked every few seconds, by machines."""

Outcome = Literal["ok", "refused", "failed", "timeout", "client_gone"]
CacheOutcome = Literal["hit", "joined", "miss", "bypass"]
"""What the cache had: the answer; one that was being generated; nothing; or it was not asked."""


@dataclass(slots=True)
class RequestRecord:
    """Middleware opens it, handlers and the pipeline fill it, middleware closes it. `created` is Unix time, the other
    times are `time.perf_counter()` seconds.

    `usage` is what the client is billed, `uncharged_tokens` what the engine generated beyond it. `answer_headers` go
    with whatever is answered. Whatever the request waits for, it waits for with `patience`. `fingerprint` is the
    body's, so that the same request is known again. `replay_of` is the request whose answer this one got once more.
    `told_elsewhere`: another record tells of the request, its generation's, which may outlast it. `keep_settlement`
    takes the ledger's settlement of a complete answer, to have it written together with the answer. `route` is the
    route's template ("/v1/models/{model_id}"), never the path of a client; "unmatched" where none fits. `user`,
    `safety_identifier` and `metadata` are the client's words, for accounts and never for logs.
    """

    request_id: str
    method: str
    route: str = "unmatched"
    client_request_id: str | None = None
    retry_count: int = 0
    fingerprint: int | None = None
    status: int | None = None
    outcome: Outcome = "ok"
    error_code: str | None = None
    tenant: str | None = None
    key_id: str | None = None
    model: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    usage: Usage | None = None
    uncharged_tokens: int = 0
    finish_reason: str | None = None
    cache: CacheOutcome | None = None
    cache_tier: str | None = None
    queue_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    last_token: float | None = None
    ended: float | None = None
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    patience: Patience = field(default_factory=Patience)
    aborted: float | None = None
    replay_of: str | None = None
    told_elsewhere: bool = False
    keep_settlement: Callable[[Any], None] | None = None

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token is None else self.first_token - self.started

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per output token after the first; None below two tokens."""
        if (
            self.first_token is None
            or self.last_token is None
            or self.usage is None
            or self.usage.completion_tokens < 2
        ):
            return None
        return (self.last_token - self.first_token) / (self.usage.completion_tokens - 1)

    @property
    def abort_s(self) -> float | None:
        """From noticing that the client left to having told the engine."""
        left = self.patience.left_at
        return None if left is None or self.aborted is None else self.aborted - left

    @property
    def duration_s(self) -> float | None:
        return None if self.ended is None else self.ended - self.started
