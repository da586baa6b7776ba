"""`bench frontend`: what the front end costs when the engine costs next to nothing.

The scripted engine without delays, the server on one core and the client on another, with everything on that users
have: a key with limits and budgets, prices, ledger, logs, metrics, the exact tier of the cache.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forebay.bench.client import Client, Target
from forebay.bench.cores import pinned, two_cores
from forebay.bench.datasets import DatasetOptions
from forebay.bench.datasets.session import Turn
from forebay.bench.disk import IN_MEMORY_MS, fdatasync_figures
from forebay.bench.load import Form
from forebay.bench.outcome import Outcome
from forebay.bench.own_server import OwnServer, accounting_server
from forebay.bench.plan import Plan, Step
from forebay.bench.quick import run_quick
from forebay.bench.serve import run_step
from forebay.errors import ConfigurationError

SEQUENCES = "4096"
SCRIPTED = (
    "--engine",
    "scripted",
    "--max-num-seqs",
    SEQUENCES,
    "--max-queued-requests",
    SEQUENCES,
    "--max-queued-tokens",
    "10000000",
    "--cache",
    "exact",
)
MIB, KIB = 2**20, 2**10
PROMPT_LEN = 8
STEADY_CPU_S = 0.05


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of load. `burst` is how many tokens the engine gives an answer in a step, unless the 16 that it gives by
    itself; `pause_ms` its delay then, unless none."""

    name: str
    connections: int
    tokens: int
    stream: bool
    burst: int | None = None
    pause_ms: float | None = None

    def plan(self, server: OwnServer, num_requests: int, seed: int) -> tuple[Plan, Step]:
        step = Step(num_requests, max_concurrency=self.connections)
        asked = {"forebay_burst": self.burst, "forebay_inter_token_ms": self.pause_ms}
        metadata = {name: str(value) for name, value in asked.items() if value is not None}
        plan = Plan(
            Target(server.url, api_key=server.key),
            [step],
            DatasetOptions(input_len=PROMPT_LEN, output_len=self.tokens),
            model="scripted",
            stream=self.stream,
            ignore_eos=True,
            extra_body={"metadata": metadata} if metadata else {},
            seed=seed,
        )
        return plan, step


WHOLE = Job("whole", connections=16, tokens=16, stream=False)
STEPS = Job("one_token_a_step", connections=32, tokens=256, stream=True, burst=1)
"""The engine never waits: what the front end cannot send one by one it sends together (`tokens_per_frame`)."""
COALESCED = Job("coalesced", connections=32, tokens=256, stream=True)
PACED = Job("one_token_a_frame", connections=96, tokens=256, stream=True, burst=1, pause_ms=6.0)
"""Slow enough that each token has a frame of its own: what one costs is in `cpu_us_per_token`."""
SIZES = {WHOLE: 20_000, STEPS: 960, COALESCED: 3_200, PACED: 288}
"""Requests of one round, some seconds each."""
ROUNDS = 3


def measure(job: Job, server: OwnServer, num_requests: int, seed: int) -> dict[str, float]:
    """One round. Raises ConfigurationError where a request fails."""
    plan, step = job.plan(server, num_requests, seed)
    before_s = server.cpu_s()
    ran = run_quick(run_step(plan, step, seed))
    cpu_s = server.cpu_s() - before_s
    result = ran.result
    if result["failed"]:
        raise ConfigurationError(f"Requests failed: {result['error_counts']}, {first_failure(ran.outcomes)}.")
    num_tokens = result["total_output_tokens"]
    num_frames = sum(len(outcome.itls_s) + 1 for outcome in ran.outcomes)
    return {
        "requests_per_s": result["request_throughput"],
        "tokens_per_s": result["output_throughput"],
        "p50_ms": result["p50_e2el_ms"],
        "p99_ms": result["p99_e2el_ms"],
        "cpu_us_per_request": cpu_s / num_requests * 1e6,
        "cpu_us_per_token": cpu_s / num_tokens * 1e6,
        "tokens_per_frame": num_tokens / num_frames,
        "client_cpu_share": result["client_cpu_share"],
    }


def first_failure(outcomes: Sequence[Outcome]) -> str:
    """In words; there is one."""
    return next(outcome.message for outcome in outcomes if outcome.failure is not None)


@contextmanager
def on_two_cores() -> Iterator[OwnServer]:
    """The server on one, this process on another meanwhile, where there are two."""
    server_core, client_core = two_cores() or (None, None)
    with accounting_server(*SCRIPTED, core=server_core) as server, pinned(client_core):
        yield server


def run_frontend(
    server: OwnServer,
    *,
    scale: float = 1.0,
    num_open: int = 2000,
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Every job after a warm-up of a tenth, of each figure the median of `ROUNDS`; then open streams. `scale`
    multiplies the numbers of requests."""
    found: dict[str, Any] = {"pinned": server.core is not None, "rss_idle_mib": server.rss() / MIB}
    found |= fdatasync_figures(server.data)
    show("idle: {rss_idle_mib:.0f} MiB; a page is durable in {fdatasync_p50_ms:.3f} ms".format(**found))
    if found["fdatasync_p50_ms"] < IN_MEMORY_MS:
        show("The ledger is in memory here, where commits cost nothing: set TMPDIR to a folder on a disk.")
    for number, (job, size) in enumerate(SIZES.items()):
        num_requests = max(1, round(size * scale))
        measure(job, server, max(1, num_requests // 10), number + 100)
        rounds = [measure(job, server, num_requests, number * ROUNDS + each) for each in range(ROUNDS)]
        found[job.name] = {"connections": job.connections, "tokens": job.tokens, "rounds": ROUNDS}
        found[job.name] |= {figure: statistics.median(each[figure] for each in rounds) for figure in rounds[0]}
        show(line_of(job.name, found[job.name]))
    found["rss_after_load_mib"] = server.rss() / MIB
    if num_open:
        found["open_streams"] = run_quick(measure_open_streams(server, num_open))
        show("open streams: {num} of {kib_each:.1f} KiB each".format(**found["open_streams"]))
    return found


def line_of(name: str, figures: dict[str, float]) -> str:
    said = [
        f"{figures['requests_per_s']:.0f} requests/s",
        f"{figures['tokens_per_s']:.0f} tokens/s ({figures['tokens_per_frame']:.1f} a frame)",
        f"p50 {figures['p50_ms']:.1f} ms",
        f"p99 {figures['p99_ms']:.1f} ms",
        f"{figures['cpu_us_per_request']:.0f} us of CPU a request",
        f"{figures['cpu_us_per_token']:.1f} a token",
        f"client {figures['client_cpu_share']:.0%} of its core",
    ]
    return f"{name}: {', '.join(said)}"


async def measure_open_streams(server: OwnServer, number: int) -> dict[str, float]:
    """What `number` streams between two tokens hold of the server's memory, from how much it grows."""
    client = Client(Target(server.url, api_key=server.key))
    quiet = {"metadata": {"forebay_inter_token_ms": "600000"}}
    form = Form("scripted", is_chat=True, ignore_eos=True, extra=quiet)
    before = server.rss()
    body = form.body([], Turn("stay", max_tokens=2))
    tasks = [asyncio.create_task(client.ask(body)) for _ in range(number)]
    try:
        await _until_steady(server)
        if done := [task.result() for task in tasks if task.done()]:
            raise ConfigurationError(f"{len(done)} streams did not stay open: {done[0].kind} {done[0].message}.")
        return {"num": number, "kib_each": (server.rss() - before) / number / KIB}
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client.close()


async def _until_steady(server: OwnServer, timeout_s: float = 60.0) -> None:
    """Until the server has used no CPU to speak of for a second."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before_s = server.cpu_s()
        await asyncio.sleep(1.0)
        if server.cpu_s() - before_s < STEADY_CPU_S:
            return
