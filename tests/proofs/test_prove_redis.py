"""What a Redis that is lost, slow or broken does to servers under load: nothing to those it has been promised to."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from proofs.conftest import Proof
from support.administrator import OWNER, AdminClient
from support.fleet import peak_tokens
from support.ledger import LedgerFile
from support.redis import RedisProcess
from support.redis_faults import FAULTS
from support.server import ServerProcess
from support.tcp_proxy import TcpProxy

NUM_SERVERS = 2
CLIENTS, PAUSE_S = 4, 0.02
"""Of each kind, at each server."""
PHASE_S, STOPPED_S, RECOVERY_S = 8.0, 30.0, 10.0
P99_RATIO, CPU_RATIO, LOG_BYTES = 2.0, 1.2, 64
BUDGET = 10**9
ALWAYS_UP = ("wiped", "resetting", "evicting")
"""Faults that leave Redis answering."""


@dataclass
class Phase:
    """What was seen while it lasted. Latencies are of requests under rate limits, which every phase has to serve."""

    limited: Counter[Any] = field(default_factory=Counter)
    spending: Counter[Any] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    log_bytes: int = 0

    @property
    def num_requests(self) -> int:
        return self.limited.total() + self.spending.total()

    @property
    def p99(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / self.num_requests

    @property
    def log_bytes_each(self) -> float:
        return self.log_bytes / self.num_requests


class Load:
    """Clients with two keys at every server; `phase` counts what comes in."""

    def __init__(self, servers: list[ServerProcess], limited: str, spending: str) -> None:
        self._servers = servers
        self._keys = {"limited": limited, "spending": spending}
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self.phase = Phase()
        self.billed = 0
        self._processes = [psutil.Process(server.process.pid) for server in servers if server.process]

    def begin(self) -> None:
        for server in self._servers:
            for kind in self._keys:
                self._tasks += [asyncio.create_task(self._client(server, kind)) for _ in range(CLIENTS)]

    async def end(self) -> None:
        """Once every request that was sent is answered."""
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def measure(self, seconds: float) -> Phase:
        self.phase = phase = Phase()
        cpu_s, log_bytes = self._used()
        await asyncio.sleep(seconds)
        after_s, after_bytes = self._used()
        phase.cpu_s, phase.log_bytes = after_s - cpu_s, after_bytes - log_bytes
        self.phase = Phase()
        return phase

    def _used(self) -> tuple[float, int]:
        cpu_s = sum(sum(process.cpu_times()[:2]) for process in self._processes)
        return cpu_s, sum(server.log_path.stat().st_size for server in self._servers)

    async def _client(self, server: ServerProcess, kind: str) -> None:
        body = {"prompt": [104] * 5, "max_tokens": 8, "ignore_eos": True}
        headers = {"authorization": f"Bearer {self._keys[kind]}"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
            while not self._ending:
                phase, began = self.phase, time.perf_counter()
                answer = await http.post("/v1/completions", json=body)
                outcome = 200 if answer.status_code == 200 else answer.json()["error"]["code"]
                if outcome == 200:
                    self.billed += answer.json()["usage"]["total_tokens"]
                (phase.limited if kind == "limited" else phase.spending)[outcome] += 1
                if kind == "limited":
                    phase.latencies.append(time.perf_counter() - began)
                await asyncio.sleep(PAUSE_S)


def gauges(servers: list[ServerProcess], name: str) -> list[float]:
    texts = [httpx.get(server.url + "/metrics").text for server in servers]
    return [next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " ")) for text in texts]


async def until(servers: list[ServerProcess], name: str, value: float) -> float:
    began = time.monotonic()
    while set(await asyncio.to_thread(gauges, servers, name)) != {value}:
        assert time.monotonic() - began < 60, f"{name} is not {value}"
        await asyncio.sleep(0.1)
    return time.monotonic() - began


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_redis_under_load(name: str, tmp_path: Path, proof: Proof) -> None:
    """No request under rate limits fails; requests under a hard budget are served or told to come back; all that was
    answered is billed, once; with the breaker open it costs little; and it ends by itself."""
    redis = RedisProcess(tmp_path / "redis").start()
    async with AsyncExitStack() as stack:
        stack.callback(redis.stop)
        proxy = await stack.enter_async_context(TcpProxy(redis.port))
        settings = {
            "FOREBAY_REDIS_URL": f"redis://127.0.0.1:{proxy.port}",
            "FOREBAY_REPLICAS": str(NUM_SERVERS),
            "FOREBAY_API_KEYS": OWNER,
        }
        servers = [
            ServerProcess(tmp_path / str(number) / "log", ["--engine", "scripted"], settings)
            for number in range(NUM_SERVERS)
        ]
        for server in servers:
            stack.callback(server.stop)
            await asyncio.to_thread(server.start)
        await until(servers, "forebay_shared_budgets_open", 1)
        with AdminClient(servers[0], OWNER) as admin:
            limited = admin.make(limits={"requests_per_minute": 10**6, "tokens_per_minute": 10**8})
            budget = {"amount": BUDGET, "unit": "tokens", "window": "day", "hard": True}
            spending = admin.make(limits={"budgets": [budget]})
        await asyncio.sleep(1)
        load = Load(servers, limited.key, spending.key)
        load.begin()
        await load.measure(1)
        before = await load.measure(PHASE_S)
        async with FAULTS[name](redis, proxy):
            opening = Phase()
            if name not in ALWAYS_UP:
                load.phase = opening
                await until(servers, "forebay_redis_up", 0)
            during = await load.measure(STOPPED_S if name == "stopped" else PHASE_S)
        back_s = await until(servers, "forebay_shared_budgets_open", 1)
        after = await load.measure(PHASE_S)
        await load.end()
        for server in servers:
            assert await asyncio.to_thread(server.stop) == 0
    folders = [server.data_dir for server in servers]
    for phase in (before, opening, during, after):
        assert set(phase.limited) <= {200}, phase.limited
        assert set(phase.spending) <= {200, "budget_unavailable"}, phase.spending
    assert set(after.spending) == {200}
    assert back_s <= RECOVERY_S
    assert [LedgerFile(folder).faults() for folder in folders] == [[]] * NUM_SERVERS
    peak, settled = peak_tokens(folders)
    assert settled == load.billed
    assert peak <= BUDGET
    extra_log = during.log_bytes_each - before.log_bytes_each
    assert extra_log <= LOG_BYTES
    if name not in ALWAYS_UP:
        assert during.p99 <= P99_RATIO * before.p99
        assert during.cpu_us <= CPU_RATIO * before.cpu_us
    proof(
        f"redis-{name.replace('_', '-')}",
        f"Redis {name.replace('_', ' ')}: no request under rate limits fails, what is answered is billed once.",
        requests=before.num_requests + opening.num_requests + during.num_requests + after.num_requests,
        failed_under_rate_limits=0,
        budget_closed=during.spending["budget_unavailable"] + opening.spending["budget_unavailable"],
        budget_served_meanwhile=during.spending[200],
        back_after_s=round(back_s, 2),
        p99_ms_before=round(1000 * before.p99, 2),
        p99_ms_during=round(1000 * during.p99, 2),
        cpu_us_before=round(before.cpu_us),
        cpu_us_during=round(during.cpu_us),
        extra_log_bytes_each=round(extra_log, 1),
    )
