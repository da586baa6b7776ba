"""Clients that ask until the server is killed, and what engine, clients and ledger then say of every request."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.ledger import LedgerFile
from support.server import ServerProcess

ALLOWANCE = 16
"""Tokens a stream may have delivered beyond what was billed, in the default mode, after kill -9."""


@dataclass
class Seen:
    """What one client saw of one answer."""

    request_id: str | None = None
    delivered: int = 0
    complete: bool = False
    usage: dict[str, Any] | None = None


@dataclass
class Storm:
    """`num_clients` that ask one after the other, every second one for streams, until the server is gone."""

    server: ServerProcess
    num_clients: int = 6
    seen: list[Seen] = field(default_factory=list)

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=60) as client:
            await asyncio.gather(*(self._ask_on(client, number) for number in range(self.num_clients)))

    async def _ask_on(self, client: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while True:
            seen = Seen()
            self.seen.append(seen)
            body = question(stream=(number + turn) % 2 == 0, num_tokens=20 + 7 * number)
            turn += 1
            try:
                await ask(client, body, seen)
            except httpx.TransportError:
                return


def question(*, stream: bool, num_tokens: int) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "go on"}],
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "stream": stream,
        "metadata": {"forebay_inter_token_ms": "1"},
    }
    if stream:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return body


async def ask(client: httpx.AsyncClient, body: dict[str, Any], seen: Seen) -> None:
    """Notes down what arrives as it arrives. Raises httpx.TransportError when the server goes."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        if not body["stream"]:
            whole = json.loads(await answer.aread())
            seen.request_id, seen.usage = whole["id"].partition("-")[2], whole["usage"]
            seen.delivered = whole["usage"]["completion_tokens"]
            seen.complete = True
            return
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                seen.complete = True
            elif line.startswith("data: "):
                chunk = json.loads(line.removeprefix("data: "))
                assert "error" not in chunk, chunk
                seen.request_id, seen.usage = chunk["id"].partition("-")[2], chunk["usage"]
                seen.delivered = chunk["usage"]["completion_tokens"]


@dataclass(frozen=True)
class Account:
    """The verdict over one crash."""

    num_admitted: int
    num_recovered: int
    num_complete: int
    worst_gap: int
    """Of delivered over billed tokens."""


def judge(server: ServerProcess, seen: list[Seen], *, allowance: int) -> Account:
    """Compares three witnesses once the server runs again: the engine's journal, the clients' bytes, the ledger.

    Raises AssertionError where an invariant of docs/accounting.md does not hold.
    """
    ledger = LedgerFile(server.data_dir)
    assert ledger.faults() == []
    assert ledger.num_open() == 0
    settled = {row["request_id"]: row for row in ledger.rows("settle")}
    reserved = {row["request_id"]: row for row in ledger.rows("reserve")}
    assert settled.keys() == reserved.keys(), "I1: one settlement for each admitted request"
    generated = read_journal(server.log_path.with_name("journal"))
    assert generated.keys() <= settled.keys(), "I1: the engine worked for a request that the ledger does not know"
    worst = 0
    for one in seen:
        if one.request_id is None:
            continue
        row = settled[one.request_id]
        billed = row["completion_tokens"]
        assert billed <= generated[one.request_id], "I2: billed more than was generated"
        assert one.delivered - billed <= allowance, f"I3: {one.delivered} delivered, {billed} billed"
        if not row["recovered"] and one.complete:
            assert one.usage is not None
            assert (billed, row["prompt_tokens"]) == (one.usage["completion_tokens"], one.usage["prompt_tokens"])
        worst = max(worst, one.delivered - billed)
    return Account(
        len(settled), sum(row["recovered"] for row in settled.values()), sum(one.complete for one in seen), worst
    )


def read_journal(path: Path) -> dict[str, int]:
    """Tokens that the engine generated, by request."""
    generated: dict[str, int] = {}
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            continue  # torn by the kill
        event = json.loads(line)
        request_id = event["request_id"].partition("-")[0]
        generated.setdefault(request_id, 0)
        if event["event"] == "tokens":
            generated[request_id] += event["num_tokens"]
    return generated
