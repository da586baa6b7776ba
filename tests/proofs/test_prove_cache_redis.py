"""What a Redis that is lost, hung, flushed or full does to a cache under load: requests go on, it is filled again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from proofs.conftest import Proof
from support.administrator import OWNER
from support.cached import CHAT, Asker, cached_server
from support.flights import NO_DRIFT
from support.redis import redis_8
from support.redis_faults import FAULTS
from support.server import ServerProcess
from support.tcp_proxy import TcpProxy

KINDS = ("killed", "stopped", "wiped", "full", "slow", "silent", "resetting")
NUM_SERVERS, CLIENTS = 2, 3
NUM_QUESTIONS, SKEW = 300, 1.0
PHASE_S, PAUSE_S = 8.0, 0.01
SECRET = "a secret that all of them have, long enough"
MOST_MS_MORE = 60.0
"""At the 99th percentile, of requests beside a fault: what a Redis may take before it counts as away is 50 ms."""


@dataclass
class Phase:
    """What came of the requests of a while."""

    outcomes: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return 1000 * sorted(self.latencies)[int(0.99 * len(self.latencies))]


class Load:
    """Questions by Zipf's law at every server; `phase` counts what comes in."""

    def __init__(self, servers: list[ServerProcess]) -> None:
        self._servers = servers
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self.phase = Phase()
        self.asked: set[int] = set()

    def begin(self) -> None:
        self._tasks = [
            asyncio.create_task(self._client(server, random.Random(f"{number} {server.port}")))
            for server in self._servers
            for number in range(CLIENTS)
        ]

    async def end(self) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def measure(self, seconds: float) -> Phase:
        self.phase = phase = Phase()
        await asyncio.sleep(seconds)
        self.phase = Phase()
        return phase

    async def _client(self, server: ServerProcess, rng: random.Random) -> None:
        weights = [(rank + 1) ** -SKEW for rank in range(NUM_QUESTIONS)]
        headers = {"authorization": f"Bearer {OWNER}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
            while not self._ending:
                (number,) = rng.choices(range(NUM_QUESTIONS), weights)
                phase, began = self.phase, time.perf_counter()
                answer = await http.post(CHAT, json=body(number))
                assert answer.status_code == 200, answer.text
                phase.outcomes[answer.headers["x-cache"]] += 1
                phase.latencies.append(time.perf_counter() - began)
                self.asked.add(number)
                await asyncio.sleep(PAUSE_S)


def body(number: int) -> dict[str, object]:
    script = {"forebay_script": f"The answer to number {number}.", "forebay_first_token_ms": "5"}
    question = {"role": "user", "content": f"What is number {number}?"}
    return {"messages": [question], "temperature": 0, "metadata": script}


def ask_all(server: ServerProcess, numbers: set[int]) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {OWNER}"}) as http:
        for number in numbers:
            outcomes[http.post(CHAT, json=body(number)).raise_for_status().headers["x-cache"]] += 1
    return outcomes


def log_bytes(servers: list[ServerProcess]) -> int:
    """Of what is no request's line."""
    return sum(len(line) for server in servers for line in server.written.splitlines() if '"request"' not in line)


@pytest.mark.parametrize("name", KINDS)
async def test_a_fault_of_redis_under_a_cache(name: str, tmp_path: Path, proof: Proof) -> None:
    """Every request is answered, in time; no question is generated again and again; nothing fills the log; and what
    was stored or generated meanwhile is in Redis afterwards, for a server that begins with nothing."""
    redis = redis_8(tmp_path / "redis").start()
    async with AsyncExitStack() as stack:
        stack.callback(redis.stop)
        proxy = await stack.enter_async_context(TcpProxy(redis.port))
        settings = {
            "FOREBAY_CACHE_REDIS_URL": f"redis://127.0.0.1:{proxy.port}",
            "FOREBAY_SECRET": SECRET,
            "FOREBAY_REDIS_TIMEOUT_S": "0.05",
        }
        running = stack.enter_context(ExitStack())

        async def start(label: str) -> ServerProcess:
            folder = tmp_path / label
            folder.mkdir()
            return await asyncio.to_thread(running.enter_context, cached_server(folder, **settings))

        servers = [await start(str(number)) for number in range(NUM_SERVERS)]
        load = Load(servers)
        load.begin()
        await load.measure(2)
        before = await load.measure(PHASE_S)
        quiet = log_bytes(servers)
        cpu = [psutil.Process(server.process.pid) for server in servers if server.process]
        async with FAULTS[name](redis, proxy):
            began = sum(sum(each.cpu_times()[:2]) for each in cpu)
            during = await load.measure(PHASE_S)
            cpu_s = sum(sum(each.cpu_times()[:2]) for each in cpu) - began
        said = log_bytes(servers) - quiet
        after = await load.measure(PHASE_S)
        await load.end()
        await asyncio.sleep(1.5)
        newcomer = await start("newcomer")
        found = await asyncio.to_thread(ask_all, newcomer, load.asked)
        again = await asyncio.to_thread(ask_all, newcomer, load.asked)
        ledgers = []
        for server in servers:
            with closing(Asker(server)) as asker:
                ledgers.append((await asyncio.to_thread(asker.drift), asker.ledger.num_open()))
        await asyncio.to_thread(running.close)
    proof(
        f"cache-redis-{name}",
        f"Redis {name} under the cache: every request is answered, no question is generated again and again, and what "
        "was asked is in Redis afterwards.",
        requests={"before": before.outcomes, "during": during.outcomes, "after": after.outcomes},
        failed=0,
        p99_ms={"before": before.p99_ms, "during": during.p99_ms, "after": after.p99_ms},
        cpu_us_a_request_during=round(1e6 * cpu_s / during.outcomes.total()),
        log_bytes_during=said,
        questions_asked=len(load.asked),
        a_new_server_found=found["hit"],
    )
    assert during.p99_ms <= before.p99_ms + MOST_MS_MORE
    assert during.outcomes["miss"] <= NUM_SERVERS * NUM_QUESTIONS
    assert after.outcomes["miss"] <= NUM_SERVERS * NUM_QUESTIONS
    assert said < 10_000
    assert found["hit"] >= 0.98 * len(load.asked)
    assert again["hit"] == len(load.asked)
    assert ledgers == [(NO_DRIFT, 0)] * NUM_SERVERS
