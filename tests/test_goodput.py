"""Ten times more than the engine can serve: it is kept busy all the same, and everybody else is told when to come
back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from support.flood import flood
from support.server import ServerProcess
from support.wire import post

NUM_SLOTS, REQUEST_S = 10, 0.1
CAPACITY = NUM_SLOTS / REQUEST_S
MAX_QUEUED = 50
SECONDS = 3.0


async def test_overload_costs_no_throughput(make_server: Callable[..., ServerProcess]) -> None:
    """Answers are 200 or 503 with Retry-After, and of the first nearly as many as the engine can give; the exact
    figures are benchmarks/overload.py's."""
    server = make_server(
        FOREBAY_ENGINE="scripted", FOREBAY_MAX_NUM_SEQS=str(NUM_SLOTS), FOREBAY_MAX_QUEUED_REQUESTS=str(MAX_QUEUED)
    )
    body = {"prompt": "a", "max_tokens": 1, "metadata": {"forebay_first_token_ms": str(1000 * REQUEST_S)}}
    replies = await flood(server.port, post("/v1/completions", body), rate=10 * CAPACITY, seconds=SECONDS)
    counted = Counter(reply.status for reply in replies)
    assert counted.keys() == {200, 503}
    assert counted[200] >= 0.8 * CAPACITY * SECONDS
    assert all(1 <= (reply.retry_after_s or 0) <= 60 for reply in replies if reply.status == 503)
