"""kill -9 with keys: what was answered is known ever after, and nobody pays twice for one answer."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from forebay.failpoints import KEYED_FAILPOINTS
from support.crash import ALLOWANCE, Account, Storm, judge, judge_keys
from support.keyed import CHAT, keyed, new_key, question, request_id_of
from support.ledger import LedgerFile
from support.server import ServerProcess

SEED = 5_06
STAGES = ("dispatched", "settling", *KEYED_FAILPOINTS)


def make(folder: Path, **env: str) -> ServerProcess:
    return ServerProcess(
        folder / "log", ["--engine", "scripted"], {"FOREBAY_SCRIPTED_JOURNAL": str(folder / "journal"), **env}
    )


def kill_at(server: ServerProcess, moment: int) -> Callable[[int], None]:
    """With so many answers given, and others under way."""

    def check(count: int) -> None:
        if count == moment:
            server.signal(signal.SIGKILL)

    return check


async def storm_through_kills(
    server: ServerProcess, moments: Iterable[int], *, allowance: int = ALLOWANCE
) -> tuple[Account, int, int]:
    """Kills the running server at each of the moments, starts it anew and judges what it then knows. Also told: how
    many keys were answered, and how many of those and others had a second row."""
    storm = Storm(server, with_keys=True)
    seen, left_open = [], set()
    for moment in moments:
        storm = Storm(
            server,
            with_keys=True,
            unanswered=storm.unanswered,
            answered=storm.answered,
            on_answer=kill_at(server, moment),
        )
        await asyncio.wait_for(storm.run(), 30)
        storm.note_kill()
        seen += storm.seen
        left_open |= storm.left_open
        server.start()
        num_again = await judge_keys(server, storm.answered)
        account = judge(server, seen, left_open, allowance=allowance)
    return account, len(storm.answered), num_again


async def test_clients_that_come_back_after_kills(tmp_path: Path) -> None:
    """Two kills over the same data: no key has two generations that were not crashed; an answer once given is given
    again, byte for byte, by every later process."""
    first = random.Random(SEED).randrange(10, 40)
    everybody_is_back = 80
    server = make(tmp_path).start()
    try:
        account, _, num_again = await storm_through_kills(server, [first, everybody_is_back])
    finally:
        server.stop()
    assert account.num_recovered >= 2, "the kills were to hit requests in flight"
    assert num_again >= 1, "some clients were to come back for what a crash had taken"


def test_killed_at_each_stage(tmp_path: Path) -> None:
    """An answer and its settlement are there both or not at all. Before that a retry is a new request beside a row that
    the sweep has settled; after it the retry gets the answer, of which the client had not yet seen the end."""
    server = make(tmp_path)
    ledger = LedgerFile(server.data_dir)
    asked = {}
    try:
        for stage in STAGES:
            asked[stage] = keyed(new_key()), question(CHAT, stream=stage != "settling", num_tokens=20)
            server.env["FOREBAY_FAILPOINT"] = stage
            server.start()
            with pytest.raises(httpx.TransportError):
                ask(server, *asked[stage])
            assert server.wait(10) == -signal.SIGKILL
            stored = ledger.query("SELECT request_id FROM idempotent_answers")
            assert stored == [
                {"request_id": row["request_id"]} for row in ledger.rows("settle") if not row["recovered"]
            ]
        assert len(stored) == 1
        del server.env["FOREBAY_FAILPOINT"]
        server.start()
        answers = {stage: ask(server, *asked[stage]) for stage in STAGES}
        assert [stage for stage in STAGES if "idempotent-replayed" in answers[stage].headers] == ["answer_stored"]
        for stage in STAGES:
            assert ask(server, *asked[stage]).content == answers[stage].content
        rows = {row["request_id"]: row for row in ledger.rows("settle")}
        assert all(rows.pop(request_id_of(answer.content))["outcome"] == "complete" for answer in answers.values())
        assert [row["recovered"] for row in rows.values()] == [1] * (len(STAGES) - 1)
        assert ledger.faults() == []
    finally:
        server.stop()


def ask(server: ServerProcess, key: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.url + CHAT, json=body, headers=key, timeout=30)
