"""kill -9 at any moment: one settlement a request, nobody billed for more than was made, hardly a token unbilled."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest

from forebay.failpoints import FAILPOINTS
from support.crash import ALLOWANCE, Storm, judge
from support.server import ServerProcess

READY_S = 3.0
SEED = 6_06


def make(folder: Path, strict: bool, **env: str) -> ServerProcess:
    journal = {"FOREBAY_SCRIPTED_JOURNAL": str(folder / "journal"), "FOREBAY_LEDGER_STRICT": str(strict).lower()}
    return ServerProcess(folder / "log", ["--engine", "scripted"], journal | env)


async def storm_until_killed(server: ServerProcess, after_s: float | None) -> Storm:
    """`after_s` None: the server kills itself."""
    storm = Storm(server)
    asking = asyncio.create_task(storm.run())
    if after_s is not None:
        await asyncio.sleep(after_s)
        server.signal(signal.SIGKILL)
    await asyncio.wait_for(asking, 30)
    storm.note_kill()
    return storm


def restart(server: ServerProcess) -> float:
    """Seconds until it is ready again."""
    server.env.pop("FOREBAY_FAILPOINT", None)
    began = time.monotonic()
    server.start()
    return time.monotonic() - began


@pytest.mark.parametrize("strict", [False, True], ids=["default", "strict"])
async def test_killed_at_random_moments(tmp_path: Path, strict: bool) -> None:
    """Four times over the same ledger: nothing lost, nothing settled twice, at most 16 tokens a stream unbilled, in
    strict mode none; ready again in seconds."""
    moments = random.Random(SEED + strict)
    server = make(tmp_path, strict).start()
    seen, left_open = [], set()
    recovered = 0
    try:
        for _ in range(4):
            storm = await storm_until_killed(server, moments.uniform(0.05, 0.5))
            seen += storm.seen
            left_open |= storm.left_open
            took_s = restart(server)
            account = judge(server, seen, left_open, allowance=0 if strict else ALLOWANCE)
            assert took_s < READY_S * 3, "a loaded machine may be slow, but not that slow"
            recovered = account.num_recovered
    finally:
        server.stop()
    assert recovered >= 1, "the kills were to hit requests in flight"
    assert account.num_admitted > recovered


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_killed_at_each_failpoint(tmp_path: Path, failpoint: str) -> None:
    """Each place where a crash could come between two steps that belong together."""
    count = 40 if failpoint in ("in_commit", "committed") else 7
    server = make(tmp_path, strict=failpoint == "checkpointed", FOREBAY_FAILPOINT=f"{failpoint}:{count}").start()
    try:
        storm = await storm_until_killed(server, None)
        restart(server)
        account = judge(server, storm.seen, storm.left_open, allowance=0 if failpoint == "checkpointed" else ALLOWANCE)
    finally:
        server.stop()
    assert account.num_admitted >= 6
