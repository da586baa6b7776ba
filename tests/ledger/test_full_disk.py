"""A disk that takes nothing any more: new work is refused, nothing is lost or doubled, and service comes back by
itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.administrator import OWNER, AdminClient
from support.full_disk import CHAT, ask_until_refused, body, full_disk
from support.ledger import LedgerFile
from support.server import ServerProcess
from support.wire import eventually


@pytest.fixture
def server(make_server: Callable[..., ServerProcess]) -> ServerProcess:
    return make_server()


async def test_a_full_disk_refuses_new_work_and_loses_nothing(server: ServerProcess) -> None:
    """503 `storage_unavailable` with Retry-After while it lasts, said in the log when it begins and when it ends; then
    service, and every answer that was given is in the ledger once.

    What a refused commit leaves free may be enough for a smaller one, so it may begin more than once."""
    ledger = LedgerFile(server.data_dir)
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        with full_disk(server):
            answered, refusal = await ask_until_refused(client)
            assert refusal.status_code == 503
            assert refusal.json()["error"]["code"] == "storage_unavailable"
            assert int(refusal.headers["retry-after"]) >= 1
            again = await client.post(CHAT, json=body())
            assert again.status_code == 503
            assert (await client.get("/live")).status_code == 200
        eventually(lambda: httpx.post(server.url + CHAT, json=body()).status_code == 200)
    settled = {row["request_id"]: row for row in ledger.rows("settle")}
    assert answered <= settled.keys()
    assert all(settled[request_id]["completion_tokens"] == 200 for request_id in answered)
    eventually(lambda: ledger.num_open() == 0)
    assert ledger.faults() == []
    num_refusals = server.log.count('"event":"storage_refuses"')
    assert 1 <= num_refusals == server.log.count('"event":"storage_recovered"') <= 3
    assert "Traceback" not in server.log


async def test_streams_under_way_end_with_an_error_and_are_billed_for_what_they_gave(server: ServerProcess) -> None:
    """No stream runs on unbilled: one whose checkpoints cannot be written stops within 16 tokens."""
    ledger = LedgerFile(server.data_dir)
    asked = body(
        stream=True,
        max_tokens=4000,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        metadata={"forebay_inter_token_ms": "5"},
    )
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        async with client.stream("POST", CHAT, json=asked) as answer:
            lines = answer.aiter_lines()
            chunk = await next_chunk(lines)
            with full_disk(server):
                await ask_until_refused(client)
                while "error" not in chunk:
                    delivered, request_id = chunk["usage"]["completion_tokens"], chunk["id"].partition("-")[2]
                    chunk = await next_chunk(lines)
                assert chunk["error"]["code"] == "storage_unavailable"
        row = await asyncio.to_thread(ledger.settled, request_id)
    assert row["outcome"] == "failed"
    assert row["completion_tokens"] == delivered > 0
    assert ledger.faults() == []


async def next_chunk(lines: Any) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: {"):
            return dict(json.loads(line.removeprefix("data: ")))
    raise AssertionError("the stream ended without an error")


async def test_a_stop_on_a_full_disk_says_that_not_all_was_written(server: ServerProcess) -> None:
    """It ends in time all the same; what could not be settled is open, and the next start settles it."""
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        with full_disk(server):
            answered, _ = await ask_until_refused(client)
            assert await asyncio.to_thread(server.stop) == 0
    ledger = LedgerFile(server.data_dir)
    server.start()
    assert ledger.num_open() == 0
    assert ledger.faults() == []
    assert answered <= {row["request_id"] for row in ledger.rows("settle")}


def test_a_start_on_a_full_disk_is_refused_in_a_sentence(server: ServerProcess) -> None:
    """Exit code 2, and the file is as it was."""
    server.signal(signal.SIGKILL)
    server.wait(5)
    words = [sys.executable, "-m", "forebay", "serve", "--port", str(server.port), *server.flags]
    refused = subprocess.run(
        ["prlimit", "--fsize=0", *words],
        env={**os.environ, **server.defaults, **server.env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert refused.returncode == 2
    assert str(server.data_dir) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert LedgerFile(server.data_dir).faults() == []
    server.start()


async def test_what_was_refused_holds_nothing(make_server: Callable[..., ServerProcess]) -> None:
    """Limits and budgets hold a request before the ledger does, and give it back where the ledger cannot: afterwards
    the key has all its places, and its budget is short of nothing but what was settled."""
    server = make_server(FOREBAY_API_KEYS=OWNER)
    ledger = LedgerFile(server.data_dir)
    with AdminClient(server, OWNER) as admin:
        key = admin.make(limits={"max_concurrency": 4, "tokens_per_minute": 10_000_000})
        async with httpx.AsyncClient(base_url=server.url, timeout=30, headers=key.headers) as client:
            with full_disk(server):
                await ask_until_refused(client)
                for _ in range(8):
                    refused = await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(4)))
                    assert {answer.json()["error"]["code"] for answer in refused} == {"storage_unavailable"}
            eventually(lambda: httpx.post(server.url + CHAT, json=body(), headers=key.headers).status_code == 200)
            long = body(metadata={"forebay_first_token_ms": "500"})
            at_once = await asyncio.gather(*(client.post(CHAT, json=long) for _ in range(4)))
            assert [answer.status_code for answer in at_once] == [200] * 4
            eventually(lambda: ledger.num_open() == 0)
            spent = sum(row["prompt_tokens"] + row["completion_tokens"] for row in ledger.rows("settle"))
            budget = {"amount": spent + 100, "unit": "tokens", "window": "total"}
            admin.get("PATCH", f"/keys/{key.id}", {"limits": {"budgets": [budget]}})
            over = await client.post(CHAT, json=body(max_tokens=100))
            assert "has 100 tokens left" in over.json()["error"]["message"]
            num_prompt_tokens = at_once[0].json()["usage"]["prompt_tokens"]
            last = await client.post(CHAT, json=body(max_tokens=100 - num_prompt_tokens))
            assert last.status_code == 200
