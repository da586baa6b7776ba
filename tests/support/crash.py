"""Clients that ask until the server is killed, and what engine, clients and ledger then say of every request."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.keyed import keyed, new_key
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
    content: str = ""
    replayed: bool = False


@dataclass(frozen=True)
class Question:
    """With an Idempotency-Key it may be asked again."""

    body: dict[str, Any]
    key: str | None = None


@dataclass
class Storm:
    """`num_clients` that ask one after the other, every second one for streams, until the server is gone.

    `with_keys`: each question has a key, and those that were `unanswered` when the last server went are asked again.
    """

    server: ServerProcess
    num_clients: int = 6
    seen: list[Seen] = field(default_factory=list)
    with_keys: bool = False
    unanswered: dict[int, Question] = field(default_factory=dict)
    answered: dict[str, tuple[Question, Seen]] = field(default_factory=dict)
    """By key."""
    left_open: set[str] = field(default_factory=set)
    """Requests that were reserved for, and not settled, when the server went."""
    on_answer: Callable[[int], None] = lambda count: None
    """Told how many there were."""
    num_answers: int = 0

    def note_kill(self) -> None:
        """Waits for the server's end, and sees what it leaves."""
        assert self.server.wait(10) == -signal.SIGKILL
        self.left_open = set(LedgerFile(self.server.data_dir).reservations())

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=60) as client:
            await asyncio.gather(*(self._ask_on(client, number) for number in range(self.num_clients)))

    async def _ask_on(self, client: httpx.AsyncClient, number: int) -> None:
        turn = 0
        while True:
            seen = Seen()
            self.seen.append(seen)
            body = question(stream=(number + turn) % 2 == 0, num_tokens=20 + 7 * number)
            asked = self.unanswered.pop(number, None) or Question(body, new_key() if self.with_keys else None)
            turn += 1
            try:
                await ask(client, asked, seen)
            except httpx.TransportError:
                self.unanswered[number] = asked
                return
            if asked.key is not None:
                self.answered[asked.key] = asked, seen
            self.num_answers += 1
            self.on_answer(self.num_answers)


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


async def ask(client: httpx.AsyncClient, asked: Question, seen: Seen) -> None:
    """Notes down what arrives as it arrives. Raises httpx.TransportError when the server goes."""
    # The ledger's rows name the client's id of a request, which here is the key.
    headers = {} if asked.key is None else keyed(asked.key) | {"x-request-id": asked.key}
    async with client.stream("POST", "/v1/chat/completions", json=asked.body, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        seen.replayed = "idempotent-replayed" in answer.headers
        if not asked.body["stream"]:
            whole = json.loads(await answer.aread())
            seen.content = answer.text
            seen.request_id, seen.usage = whole["id"].partition("-")[2], whole["usage"]
            seen.delivered = whole["usage"]["completion_tokens"]
            seen.complete = True
            return
        async for line in answer.aiter_lines():
            seen.content += line + "\n"
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


def judge(server: ServerProcess, seen: list[Seen], left_open: set[str], *, allowance: int) -> Account:
    """Compares three witnesses once the server runs again: the engine's journal, the clients' bytes, the ledger.

    `left_open`: what was open each time it went.

    Raises AssertionError where an invariant of docs/accounting.md does not hold.
    """
    ledger = LedgerFile(server.data_dir)
    assert ledger.faults() == []
    assert ledger.num_open() == 0
    settled = {row["request_id"]: row for row in ledger.rows("settle")}
    recovered = {request_id for request_id, row in settled.items() if row["recovered"]}
    assert recovered == left_open, "I1: one settlement for each admitted request"
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
    return Account(len(settled), len(recovered), sum(one.complete for one in seen), worst)


async def judge_keys(server: ServerProcess, answered: dict[str, tuple[Question, Seen]]) -> int:
    """I5: whoever was answered finds the same answer, and no key was billed for two; how many keys had a second row,
    because a crash had taken the first."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for key, (asked, first) in answered.items():
            again = Seen()
            await ask(client, asked, again)
            assert again.replayed, f"{key} was answered, and is not known"
            assert again.content == first.content
    rows: dict[str, list[bool]] = {}
    for row in LedgerFile(server.data_dir).rows("settle"):
        rows.setdefault(row["client_request_id"], []).append(bool(row["recovered"]))
    for key, recovered in rows.items():
        assert recovered.count(False) <= 1, f"{key} was generated {recovered.count(False)} times without a crash"
        assert key not in answered or False in recovered, f"{key} was answered, and its only bill is a crash's"
    return sum(len(recovered) > 1 for recovered in rows.values())


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
