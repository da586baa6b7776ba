"""What came of one request, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FailureKind = Literal["refused", "reset", "timeout", "status", "malformed", "cut", "stream_error"]
"""No connection; it broke; no end in time; a status other than 200; not HTTP, JSON or SSE; no end of the stream; an
error object within the stream."""


@dataclass(slots=True)
class Outcome:
    """Seconds of one clock. `failure` is None for an answer that came whole; `status` is 0 where there was none.

    TTFT is until the first frame with text, E2EL (`latency_s`) until the last frame of a choice: what follows it, usage
    and the end of the stream, holds no token. Both include the connection's opening where there was none to reuse.
    `itls_s` are the gaps between frames with text. A whole answer has no TTFT. Tokens are what `usage` says: None
    where the server did not say.
    """

    start_s: float = 0.0
    queued_s: float = 0.0
    ttft_s: float | None = None
    latency_s: float = 0.0
    itls_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache: str = ""
    """The response's `x-cache`."""
    text: str = ""
    """Kept only where the next request needs it, or the report is to show it."""
    status: int = 0
    failure: FailureKind | None = None
    message: str = ""
    left: bool = False
    """The client left on purpose."""

    @property
    def kind(self) -> str:
        """Of the failure, for counting: `status_429`, `reset`."""
        return f"status_{self.status}" if self.failure == "status" else str(self.failure)

    @property
    def tpot_s(self) -> float | None:
        """(E2EL - TTFT) / (n - 1); None for a whole answer, and for fewer than two tokens."""
        if self.ttft_s is None or self.output_tokens is None or self.output_tokens < 2:
            return None
        return (self.latency_s - self.ttft_s) / (self.output_tokens - 1)
