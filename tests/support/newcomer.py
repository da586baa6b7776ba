"""One key's long jobs fill the engine, another key's chats are timed to their first token: before, and beside them."""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from dataclasses import dataclass
from typing import Any

import httpx

JOB_TOKENS = 400
SETTLE_S = 15.0


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds to the first token of each chat, on the idle engine and beside the jobs; seconds of an engine step then,
    and how many sequences ran and waited."""

    idle: list[float]
    beside: list[float]
    step_s: float
    running: int
    waiting: int

    @property
    def extra_steps(self) -> list[float]:
        """What each chat beside the jobs took more than one on the idle engine, in steps; smallest first."""
        usual = statistics.median(self.idle)
        return sorted((seconds - usual) / self.step_s for seconds in self.beside)


async def time_newcomer(url: str, hog: str, newcomer: str, *, num_jobs: int = 200, num_chats: int = 7) -> Timed:
    """`hog` and `newcomer` are keys. The jobs are left when the last chat has its token."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=900, limits=limits) as client:
        asking = _Asking(client, newcomer)
        await asking.first_token_s()
        idle = [await asking.first_token_s() for _ in range(num_chats)]
        jobs = [asyncio.create_task(_job(client, hog, number)) for number in range(num_jobs)]
        try:
            await asking.until_settled()
            began, steps = time.perf_counter(), await asking.num_steps()
            beside = [await asking.first_token_s(pause_s=random.random() / 10) for _ in range(num_chats)]
            step_s = (time.perf_counter() - began) / (await asking.num_steps() - steps)
            queue = await asking.queue()
        finally:
            for job in jobs:
                job.cancel()
            ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert not [end for end in ends if not isinstance(end, asyncio.CancelledError | None)], ends
    return Timed(idle, beside, step_s, queue["running"], queue["waiting"])


async def _job(client: httpx.AsyncClient, key: str, number: int) -> None:
    body = {"prompt": f"Job {number}: once upon a time", "max_tokens": JOB_TOKENS, "ignore_eos": True}
    answer = await client.post("/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text


@dataclass(frozen=True, slots=True)
class _Asking:
    client: httpx.AsyncClient
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    async def first_token_s(self, pause_s: float = 0.0) -> float:
        """Of a short chat after a pause, streamed; its text is new each time, so that none of it is cached."""
        await asyncio.sleep(pause_s)
        body = {
            "messages": [{"role": "user", "content": f"{random.random()} What is the capital of France?"}],
            "max_tokens": 1,
            "temperature": 0,
            "stream": True,
        }
        began, first = time.perf_counter(), None
        async with self.client.stream("POST", "/v1/chat/completions", json=body, headers=self.headers) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if first is None and line.startswith("data: {"):
                    first = time.perf_counter() - began
        assert first is not None
        return first

    async def queue(self) -> dict[str, Any]:
        answer: dict[str, Any] = (await self.client.get("/stats", headers=self.headers)).json()
        return dict(answer["queue"])

    async def num_steps(self) -> float:
        text = (await self.client.get("/metrics", headers=self.headers)).text
        found = re.search(r"^forebay_engine_steps_total (\S+)$", text, re.MULTILINE)
        assert found is not None
        return float(found[1])

    async def until_settled(self) -> None:
        """The engine runs all that it will, and only steps."""
        deadline, before = time.monotonic() + SETTLE_S, None
        while (now := (await self.queue())["running"]) != before or now < 2:
            assert time.monotonic() < deadline
            before = now
            await asyncio.sleep(0.5)
