"""A stop with many streams under way: each ends whole, and is settled so, before the process does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import httpx

from support.crash import Question, Seen, ask, question
from support.ledger import LedgerFile
from support.server import ServerProcess

NUM_STREAMS = 200
NUM_TOKENS = 60


async def test_none_of_two_hundred_streams_is_cut(make_server: Callable[..., ServerProcess]) -> None:
    """SIGTERM while all of them run: every token and `[DONE]` arrive, exit code 0, nothing is left open."""
    server = make_server("--engine", "scripted", "--max-num-seqs", "256")
    paced = {"metadata": {"forebay_inter_token_ms": "50"}}
    asked = Question(question(stream=True, num_tokens=NUM_TOKENS) | paced)
    streams = [Seen() for _ in range(NUM_STREAMS)]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        asking = [asyncio.create_task(ask(client, asked, one)) for one in streams]
        while not all(one.delivered for one in streams):
            done, _ = await asyncio.wait(asking, timeout=0.02)
            assert not done, done
        server.signal(signal.SIGTERM)
        await asyncio.gather(*asking)
    assert await asyncio.to_thread(server.wait, 10) == 0
    assert all(one.complete and one.delivered == NUM_TOKENS for one in streams)
    ledger = LedgerFile(server.data_dir)
    settled = {row["request_id"]: row for row in ledger.rows("settle")}
    assert {one.request_id for one in streams} == settled.keys()
    assert {row["outcome"] for row in settled.values()} == {"complete"}
    assert {row["completion_tokens"] for row in settled.values()} == {NUM_TOKENS}
    assert ledger.num_open() == 0
    assert ledger.faults() == []
