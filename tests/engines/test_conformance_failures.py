"""Engines that hang and die, seen through their host. One engine a kind, in bfloat16 and with the threads that it
chooses itself; the last test kills it twice.

The tests of this file run in order: numbers in bfloat16 first, then the hang that passes, then the deaths.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest
import pytest_asyncio
from asking import MAX_TOP, QUESTIONS, ask, chat, divergence_gap, mixed, request, until
from building import ENGINES, build
from faults import hung, kill

from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.errors import EngineUnavailable

pytestmark = pytest.mark.asyncio(loop_scope="session")

STALL_S = 2.0
MAX_GAP_BF16 = 0.25
NUM_MIXED = 50
LOOKED_AT = range(0, NUM_MIXED, 7)
"""Some of every kind: alone they take as long as all together."""
PACED = {"forebay_first_token_ms": "20", "forebay_inter_token_ms": "10"}


@dataclass(frozen=True)
class Watched:
    """`told` is what `on_fatal` was told."""

    host: EngineHost
    told: list[str]

    async def engine(self) -> Engine:
        return await self.host.engine()


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=ENGINES)
async def watched(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    """An engine under a host that restarts it once."""
    told: list[str] = []
    host = EngineHost(
        lambda: build(request.param, dtype="bfloat16", cpu_threads=None),
        lazy=True,
        stall_timeout_s=STALL_S,
        max_restarts=1,
        on_fatal=told.append,
    )
    await host.engine()
    yield Watched(host, told)
    await host.close(10)


async def test_together_as_alone_in_bfloat16(watched: Watched) -> None:
    """Of fifty mixed greedy requests at once, those that are looked at answer as alone, up to tokens that were all but
    equally likely."""
    engine = await watched.engine()
    alone = [await mixed(engine, number) for number in LOOKED_AT]
    together = await asyncio.gather(*(mixed(engine, number) for number in range(NUM_MIXED)))
    gaps = [divergence_gap(solo, together[number].token_ids) for number, solo in zip(LOOKED_AT, alone, strict=True)]
    assert max(gaps) <= MAX_GAP_BF16


async def test_a_hung_engine_is_unhealthy_until_it_goes_on(watched: Watched) -> None:
    """With work and no step for the stall limit it is alive, but not progressing; the request survives the hang."""
    engine = await watched.engine()
    asked = request(await chat(engine, QUESTIONS[1]), max_tokens=40, ignore_eos=True, metadata=PACED)
    waiting = asyncio.create_task(collect(engine, asked))
    await until(lambda: engine.load().running > 0)
    assert watched.host.health().ok
    async with hung(engine):
        await until(lambda: not watched.host.health().ok, timeout_s=STALL_S + 3)
        health = watched.host.health()
        assert (health.alive, health.progressing) == (True, False)
        assert health.reason
    await until(lambda: watched.host.health().ok)
    assert await waiting == 40


async def test_a_dead_engine_fails_its_waiters_and_is_restarted(watched: Watched) -> None:
    """Within a second streams under way and requests still waiting get EngineUnavailable; the next engine answers.

    When that one dies too, the host turns failed and says so.
    """
    prompt = await chat(await watched.engine(), QUESTIONS[1])
    before = await ask(await watched.engine(), prompt, max_tokens=8)
    await die(watched)
    await until(lambda: watched.host.health().ok, timeout_s=120)
    again = await ask(await watched.engine(), prompt, max_tokens=8, num_logprobs=MAX_TOP)
    assert divergence_gap(again, before.token_ids) <= MAX_GAP_BF16
    assert watched.told == []
    await die(watched)
    await until(lambda: watched.host.state == "failed", timeout_s=8)
    assert watched.told == ["The engine died; restarts used: 1 of 1."]


async def die(watched: Watched) -> None:
    """Kills the engine, of which all must learn."""
    engine = await watched.engine()
    prompt = await chat(engine, QUESTIONS[1])
    asked = [request(prompt, max_tokens=900, ignore_eos=True, metadata=PACED) for _ in range(3)]
    tasks = [asyncio.create_task(time_of_failure(engine, one)) for one in asked]
    await until(lambda: engine.load().running == 3)
    struck = await kill(engine)
    for failed_at in await asyncio.wait_for(asyncio.gather(*tasks), 10):
        assert failed_at - struck < 1.0
    assert not engine.health().alive
    with pytest.raises(EngineUnavailable):
        await ask(engine, prompt)


async def collect(engine: Engine, asked: object) -> int:
    num_tokens = 0
    async with aclosing(engine.generate(asked)) as stream:
        async for delta in stream:
            num_tokens += len(delta.token_ids)
    return num_tokens


async def time_of_failure(engine: Engine, asked: object) -> float:
    """Consumes until EngineUnavailable; when that was."""
    with pytest.raises(EngineUnavailable):
        await collect(engine, asked)
    return time.monotonic()
