"""`bench soak`: minutes of mixed load with clients that leave; what grows, slows down, or is billed wrong."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from forebay.bench.client import Client, Target
from forebay.bench.datasets.session import Turn
from forebay.bench.figures import percentile
from forebay.bench.frontend import MIB, on_two_cores
from forebay.bench.load import Form
from forebay.bench.outcome import Outcome
from forebay.bench.own_server import OwnServer
from forebay.bench.process import child_environment
from forebay.bench.quick import run_quick

STREAMED, LEAVING = 0.6, 0.25
"""Shares: of requests that stream, of streams whose client leaves."""
TOKENS, PAUSES_MS, STAYS_S = (4, 160), (0.0, 4.0), (0.0, 0.3)
"""Ranges: of an answer's tokens, of the engine's delay between them, of how long a client that leaves stays."""
NUM_SAMPLES = 240


@dataclass(slots=True)
class Seen:
    """Seconds from the start. `samples` are (second, resident bytes, open files)."""

    outcomes: list[Outcome] = field(default_factory=list)
    samples: list[tuple[float, int, int]] = field(default_factory=list)


def run_soak(
    minutes: float, rate: float, seed: int, show: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, Any], list[str]]:
    """(figures, faults): a fault is a request that failed, or a ledger that is not whole or knows of too few tokens."""
    with on_two_cores() as server:
        seen = run_quick(_load(server, minutes * 60, rate, random.Random(seed), show))
        exit_code = server.stop()
        verified = _ledger(server.data, "verify")
        (settled,) = orjson.loads(_ledger(server.data, "report", "--by", "model", "--json").stdout)
    found = drift(seen, minutes * 60)
    found |= {"exit_code": exit_code, "ledger": verified.stdout.strip(), "settled_tokens": settled["completion_tokens"]}
    faults = [f"{num} requests failed: {kind}." for kind, num in found["error_counts"].items()]
    if verified.returncode or exit_code:
        faults.append(f"The server ended with {exit_code}; its ledger: {verified.stdout.strip()}")
    if settled["completion_tokens"] < found["output_tokens"]:
        faults.append(f"{found['output_tokens']} tokens were received and {settled['completion_tokens']} settled.")
    return found, faults


def drift(seen: Seen, duration_s: float) -> dict[str, Any]:
    """The second quarter against the last: the first one warms up. Growth is MiB an hour, of the slopes' median."""
    early, late = (_window(seen, duration_s, *quarter) for quarter in ((0.25, 0.5), (0.75, 1.0)))
    steady = [sample for sample in seen.samples if sample[0] >= duration_s / 4]
    whole = [outcome for outcome in seen.outcomes if outcome.failure is None and not outcome.left]
    counts: dict[str, int] = {}
    for outcome in seen.outcomes:
        if outcome.failure is not None:
            counts[outcome.kind] = counts.get(outcome.kind, 0) + 1
    return {
        "duration": duration_s,
        "completed": len(whole),
        "left": sum(outcome.left for outcome in seen.outcomes),
        "error_counts": counts,
        "output_tokens": sum(outcome.output_tokens or 0 for outcome in whole),
        "rss_first_mib": seen.samples[0][1] / MIB,
        "rss_last_mib": seen.samples[-1][1] / MIB,
        "rss_growth_mib_per_hour": slope([(second, rss) for second, rss, _ in steady]) * 3600 / MIB,
        "open_files_first": seen.samples[0][2],
        "open_files_last": seen.samples[-1][2],
        "early": early,
        "late": late,
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: the median of the slopes of all pairs, which a few outliers do not move. 0 for one point."""
    slopes = [
        (later - earlier) / (end - begin)
        for number, (begin, earlier) in enumerate(points)
        for end, later in points[number + 1 :]
        if end > begin
    ]
    return statistics.median(slopes) if slopes else 0.0


async def _load(
    server: OwnServer, seconds: float, rate: float, rng: random.Random, show: Callable[[str], None]
) -> Seen:
    client = Client(Target(server.url, api_key=server.key))
    seen = Seen()
    began = time.perf_counter()
    sampling = asyncio.create_task(_sample(server, seen, began, seconds, show))
    tasks: set[asyncio.Task[None]] = set()
    due = began
    try:
        while due < began + seconds:
            if (wait_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(_one(client, rng, seen, began))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += rng.expovariate(rate)
        await asyncio.gather(*tasks)
        await sampling
    finally:
        sampling.cancel()
        client.close()
    return seen


async def _one(client: Client, rng: random.Random, seen: Seen, began: float) -> None:
    stream = rng.random() < STREAMED
    leave_after_s = rng.uniform(*STAYS_S) if stream and rng.random() < LEAVING else None
    pause = {"metadata": {"forebay_inter_token_ms": f"{rng.uniform(*PAUSES_MS):.2f}"}}
    form = Form("scripted", is_chat=True, stream=stream, ignore_eos=True, extra=pause)
    body = form.body([], Turn(f"Number {rng.random()}", rng.randint(*TOKENS)))
    outcome = await client.ask(body, leave_after_s=leave_after_s)
    outcome.start_s -= began
    outcome.itls_s = []
    seen.outcomes.append(outcome)


async def _sample(server: OwnServer, seen: Seen, began: float, seconds: float, show: Callable[[str], None]) -> None:
    process = psutil.Process(server.process.pid)
    for number in range(NUM_SAMPLES + 1):
        await asyncio.sleep(began + number * seconds / NUM_SAMPLES - time.perf_counter())
        now_s = time.perf_counter() - began
        seen.samples.append((now_s, server.rss(), process.num_fds()))
        if number % (NUM_SAMPLES // 12) == 0:
            show(f"{now_s:.0f} s: {len(seen.outcomes)} requests, {seen.samples[-1][1] / MIB:.0f} MiB")


def _window(seen: Seen, duration_s: float, begin: float, end: float) -> dict[str, float]:
    """Latencies, milliseconds, and memory of requests that began between these shares of the run."""
    inside = [each for each in seen.outcomes if begin <= each.start_s / duration_s < end and each.failure is None]
    ttfts = sorted(each.ttft_s for each in inside if each.ttft_s is not None)
    sizes = [rss for second, rss, _ in seen.samples if begin <= second / duration_s <= end]
    return {
        "requests": len(inside),
        "ttft_p50_ms": percentile(ttfts, 50) * 1000,
        "ttft_p99_ms": percentile(ttfts, 99) * 1000,
        "rss_mib": statistics.median(sizes) / MIB if sizes else 0.0,
    }


def _ledger(data: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "forebay", "ledger", "--data-dir", str(data), *words],
        env=child_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
