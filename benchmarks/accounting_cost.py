"""What keys, limits, budgets and the ledger cost a request: the same server with all of it on, and with none of it.

    python benchmarks/accounting_cost.py [--pairs 7] [--requests 4000] [--connections 16]

Prints one JSON object: microseconds of the server's CPU (all its threads) a request, the difference with a 95% interval
of its median over the pairs, and how the disk did: the 99th percentile of a group commit beside that of a bare
`fdatasync` of one page in the same folder, with the connections of the load, with four and with one. The server is kept
on one core and the client on another. Requests go out in
waves, one on each connection, so that the engine steps them together either way: group commit gathers them, and without
it the engine would have more steps for the same tokens, which cost more than the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests")]

from forebay.bench.disk import fdatasync_seconds  # noqa: E402 - after the path
from forebay.bench.flags import at_least_one  # noqa: E402 - after the path
from forebay.bench.intervals import MIN_PAIRS, median_interval  # noqa: E402 - after the path
from forebay.bench.process import free_port  # noqa: E402 - after the path
from forebay.settings import Settings  # noqa: E402 - after the path
from support.server import SERVER_ROOT, ServerProcess  # noqa: E402 - after the path

BODY = {"model": "scripted", "max_tokens": 16, "ignore_eos": True, "messages": [{"role": "user", "content": "hello"}]}
FEW_CONNECTIONS = (4, 1)
"""With which the server has idle moments, so that the writer need not wait for the interpreter's lock."""
ROUNDS_OF_COMMITS = 3

PRICES = {"version": "1", "models": {"*": {"prompt": 100_000, "completion": 400_000}}}


class Client(asyncio.Protocol):
    """One connection, one request at a time, hardly any work of its own."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0 or self.answered is None:
            return
        head = bytes(self.received[:end]).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self.received) >= end + 4 + length:
            self.received.clear()
            self.answered.set_result(head)

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self.answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answered


async def load(port: int, key: str | None, num_requests: int, num_connections: int) -> list[float]:
    """Seconds of each request."""
    body = json.dumps(BODY).encode()
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}Content-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    took = []
    loop = asyncio.get_running_loop()
    connections = [await loop.create_connection(Client, "127.0.0.1", port) for _ in range(num_connections)]
    for _ in range(num_requests // num_connections):
        began = time.perf_counter()

        async def ask(client: Client, began: float = began) -> None:
            head = await client.ask(request)
            took.append(time.perf_counter() - began)
            assert b" 200 " in head[:16], head

        await asyncio.gather(*(ask(client) for _, client in connections))
    for transport, _ in connections:
        transport.close()
    return took


class Accounting:
    """The server as users run it, with a key that has every kind of limit and budget, none of which it reaches."""

    def __init__(self, folder: Path, *flags: str) -> None:
        (folder / "prices.json").write_text(json.dumps(PRICES), encoding="utf-8")
        env = {"FOREBAY_DATA_DIR": str(folder / "data"), "FOREBAY_PRICES_FILE": str(folder / "prices.json")}
        self.folder = folder
        self.key: str | None = self._create_key(env)
        self.server = ServerProcess(folder / "log", ["--engine", "scripted", *flags], env).start()
        assert self.server.process is not None
        self.pid, self.port = self.server.process.pid, self.server.port

    @staticmethod
    def _create_key(env: dict[str, str]) -> str:
        words = ["keys", "create", "--name", "bench", "--rpm", "10000000", "--tpm", "1000000000", "--concurrency"]
        words += ["10000", "--budget", "1000000/month", "--budget", "1000000000tokens/day", "--json"]
        ran = subprocess.run(
            [sys.executable, "-m", "forebay", *words],
            env={**os.environ, "PYTHONPATH": str(SERVER_ROOT), **env},
            capture_output=True,
            text=True,
            check=True,
        )
        return str(json.loads(ran.stdout)["key"])

    def commit_seconds(self) -> dict[str, float]:
        """Of the histogram in /metrics, its bounds and cumulative counts."""
        text = httpx.get(f"{self.server.url}/metrics", headers={"Authorization": f"Bearer {self.key}"}).text
        prefix = "forebay_ledger_commit_seconds_bucket{le="
        pairs = [line.removeprefix(prefix).split("} ") for line in text.splitlines() if line.startswith(prefix)]
        return {bound.strip('"'): float(count) for bound, count in pairs}

    def stop(self) -> None:
        self.server.stop()


class Nothing:
    """The same code with limits, budgets and ledger replaced by what costs next to nothing, and without keys."""

    def __init__(self, folder: Path) -> None:
        self.key: str | None = None
        self.port = free_port()
        env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT), "FOREBAY_DATA_DIR": str(folder / "none")}
        env |= {"FOREBAY_LOG_FORMAT": "json", "FOREBAY_PORT": str(self.port)}
        with (folder / "none.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, __file__, "--serve-nothing"], env=env, stderr=log)
        self.pid = self.process.pid
        while self.process.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def serve_nothing() -> None:
    """In a process of its own."""
    from forebay.app import create_app
    from forebay.observe.logs import configure_logging
    from forebay.services import build_services
    from forebay.serving import Server
    from forebay.sockets import bind_socket

    class Free:
        """Everything is admitted, covered and forgotten."""

        settled = False
        cache_kind = None

        def covers(self, num_tokens: int) -> bool:
            return True

        async def cover(self, num_tokens: int) -> None:
            pass

        def settle(self, *_: Any, **__: Any) -> None:
            self.settled = True

    class FreeReserving:
        """Guard and ledger in one."""

        def peek(self, caller: Any, *_: Any) -> None:
            pass

        async def reserve(self, caller: Any, record: Any, work: Any) -> tuple[Any, Free]:
            return work, Free()

    given: dict[str, Any] = {"engine": "scripted"}
    settings = Settings(**given)
    configure_logging(settings)
    services = build_services(settings)
    assert hasattr(services.pipeline, "_reserving")  # there is no switch for it
    setattr(services.pipeline, "_reserving", FreeReserving())  # noqa: B010 - for the type checker
    with bind_socket(settings) as sock:
        server = Server(create_app(settings, services), services, sock, None, lambda listening: None)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[sock]))


def measure(target: Accounting | Nothing, num_requests: int, num_connections: int) -> dict[str, float]:
    """Of one round."""
    process = psutil.Process(target.pid)
    before = process.cpu_times()
    began = time.perf_counter()
    took = uvloop.run(load(target.port, target.key, num_requests, num_connections))
    seconds = time.perf_counter() - began
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    took.sort()
    return {
        "requests_per_s": len(took) / seconds,
        "cpu_us": cpu / len(took) * 1e6,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
    }


def quantile(cumulative: dict[str, float], share: float) -> float:
    """As Prometheus' `histogram_quantile` has it: values lie evenly in their bucket; buckets are narrow."""
    wanted = share * max(cumulative.values())
    below, before = 0.0, 0.0
    for bound, count in cumulative.items():
        if count >= wanted:
            break
        below, before = float(bound), count
    return below + (float(bound) - below) * (wanted - before) / (count - before)


def commits(target: Accounting, num_requests: int, num_connections: int) -> dict[str, float]:
    """How long they took under one more round of load, and what `fdatasync` takes right after it."""
    before = target.commit_seconds()
    measure(target, num_requests, num_connections)
    new = {bound: count - before[bound] for bound, count in target.commit_seconds().items()}
    syncs = fdatasync_seconds(target.folder, 500)
    sync_ms = 1000 * syncs[int(len(syncs) * 0.99)]
    p50_ms, p99_ms = (1000 * quantile(new, share) for share in (0.5, 0.99))
    return {
        "commits": max(new.values()),
        "p50_ms": p50_ms,
        "p99_ms": p99_ms,
        "fdatasync_p99_ms": sync_ms,
        "p99_over_fdatasync": p99_ms / sync_ms,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=MIN_PAIRS)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--connections", type=at_least_one, default=16)
    parser.add_argument("--model", help="for `make bench-long`, which gives it to every benchmark; not used")
    parser.add_argument("--serve-nothing", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.pairs < MIN_PAIRS or args.requests < 4 * args.connections:  # a quarter of them warms up, in waves
        parser.error(f"{MIN_PAIRS} --pairs at least, and four --requests for each of --connections")
    if args.serve_nothing:
        serve_nothing()
        return
    rounds: dict[str, list[dict[str, float]]] = {"on": [], "off": []}
    found: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        folder = Path(name)
        on, off = Accounting(folder), Nothing(folder)
        cores = sorted(psutil.Process().cpu_affinity())
        for target in (on, off):
            psutil.Process(target.pid).cpu_affinity(cores[:1])
        psutil.Process().cpu_affinity(cores[-1:])
        try:
            for target in (on, off):
                measure(target, args.requests // 4, args.connections)
            for _ in range(args.pairs):
                for label, target in (("on", on), ("off", off)):
                    rounds[label].append(measure(target, args.requests, args.connections))
            for number in (args.connections, *FEW_CONNECTIONS):
                for _ in range(ROUNDS_OF_COMMITS):
                    found.setdefault(number, []).append(commits(on, args.requests * number // 4, number))
        finally:
            on.stop()
            off.stop()
    added = [one["cpu_us"] - other["cpu_us"] for one, other in zip(rounds["on"], rounds["off"], strict=True)]
    figures = {
        label: {name: round(statistics.median(one[name] for one in ran), 2) for name in ran[0]}
        for label, ran in rounds.items()
    }
    result = {
        **figures,
        "added_cpu_us": round(statistics.median(added), 1),
        "added_cpu_us_interval": [round(value, 1) for value in median_interval(added)],
        "commits": {
            f"{number}_connections": {name: [round(one[name], 3) for one in ran] for name in ran[0]}
            for number, ran in found.items()
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
