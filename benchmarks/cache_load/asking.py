"""Requests that a cache may answer, one by one, many at a time, or at a rate."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from forebay.bench.client import Client, Target
from forebay.bench.figures import percentile
from forebay.bench.outcome import Outcome
from forebay.bench.own_server import OwnServer

ANSWER = " ".join(f"word{number}" for number in range(8))
"""About 16 tokens of the scripted engine's."""


def body(question: str) -> dict[str, Any]:
    """Greedily, so that it may be stored; the script's words come back."""
    return {
        "model": "scripted",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 64,
        "metadata": {"forebay_script": ANSWER},
    }


def target(server: OwnServer, **headers: str) -> Target:
    return Target(server.url, api_key=server.key, headers=headers)


async def ask_with(
    where: Target, questions: Sequence[str], *, connections: int = 1, make: Callable[[str], dict[str, Any]] = body
) -> list[Outcome]:
    """Each once, so many at a time."""
    client, waiting, outcomes = Client(where), iter(questions), []

    async def work(mine: Iterable[str]) -> None:
        outcomes.extend([checked(await client.ask(make(question))) for question in mine])

    try:
        await asyncio.gather(*(work(waiting) for _ in range(connections)))
    finally:
        client.close()
    return outcomes


async def ask_at(where: Target, questions: Sequence[str], rate: float, rng: random.Random) -> list[Outcome]:
    """A Poisson process of so many a second, whether earlier ones are answered or not."""
    client, tasks, due = Client(where), [], time.perf_counter()
    try:
        for question in questions:
            due += rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(client.ask(body(question))))
        return [checked(outcome) for outcome in await asyncio.gather(*tasks)]
    finally:
        client.close()


async def ping(where: Target, seconds: float, every_s: float = 0.005) -> list[float]:
    """Milliseconds that a route takes which waits for nothing but the event loop, ascending."""
    client, took, until = Client(where), [], time.perf_counter() + seconds
    try:
        while (began := time.perf_counter()) < until:
            await client.fetch("/live")
            took.append(1000 * (time.perf_counter() - began))
            await asyncio.sleep(every_s)
    finally:
        client.close()
    return sorted(took)


def checked(outcome: Outcome) -> Outcome:
    if outcome.failure is not None:
        raise SystemExit(f"A request failed: {outcome.kind}: {outcome.message}")
    return outcome


def latencies_ms(outcomes: Sequence[Outcome]) -> dict[str, float]:
    ordered = sorted(1000 * outcome.latency_s for outcome in outcomes)
    return {f"p{percent:g}_ms": round(percentile(ordered, percent), 3) for percent in (50, 99)}
