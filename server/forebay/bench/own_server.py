"""Servers of ours that a benchmark starts for itself: on data of their own, on a core of their own."""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from forebay.bench.process import STOP_TIMEOUT_S, child_environment, free_port, running, stop

READY_TIMEOUT_S = 240.0
CPU_CLOCK = 2
"""In the number of another process's clock, all its threads' time (CPUCLOCK_SCHED of the kernel's posix-timers)."""
PRICES = {"version": "1", "models": {"*": {"prompt": 100_000, "completion": 400_000}}}
FOREBAY, YARDSTICK = ("-m", "forebay"), ("-m", "forebay.bench.yardstick")
GENEROUS = ("--rpm", "100000000", "--tpm", "10000000000", "--concurrency", "100000")
BUDGETS = ("--budget", "1000000000/month", "--budget", "1000000000000tokens/day")


@dataclass(frozen=True, slots=True)
class OwnServer:
    """One that answers. `key` is None where it asks for none, `core` where it is on any; `data` is its data folder."""

    process: subprocess.Popen[bytes]
    port: int
    data: Path
    key: str | None = None
    core: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Used by its process so far, all threads. Linux tells nanoseconds, psutil ticks of 10 ms."""
        if platform.system() == "Linux":
            return time.clock_gettime(~self.process.pid << 3 | CPU_CLOCK)
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def rss(self) -> int:
        """Bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def stop(self) -> int:
        """The exit code."""
        return stop(self.process, STOP_TIMEOUT_S)


@contextmanager
def accounting_server(*flags: str, core: int | None = None, program: Sequence[str] = FOREBAY) -> Iterator[OwnServer]:
    """`forebay serve` with these flags and all that users have: a key with every limit and budget, prices, a ledger.

    `program`: what Python runs as Forebay."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as name:
        folder = Path(name)
        prices = folder / "prices.json"
        prices.write_bytes(orjson.dumps(PRICES))
        env = {"FOREBAY_DATA_DIR": str(folder / "data"), "FOREBAY_PRICES_FILE": str(prices)}
        key = _create_key(env)
        with _running([*program, "serve", *flags], folder, env, core, key) as server:
            yield server


@contextmanager
def open_server(*flags: str, core: int | None = None, settings: Mapping[str, str] | None = None) -> Iterator[OwnServer]:
    """`forebay serve` with these flags and settings (names of the environment), on loopback without a key."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as name:
        folder = Path(name)
        env = {"FOREBAY_DATA_DIR": str(folder / "data"), **(settings or {})}
        with _running([*FOREBAY, "serve", *flags], folder, env, core, None) as server:
            yield server


@contextmanager
def yardstick_server(core: int | None = None) -> Iterator[OwnServer]:
    """The raw ASGI app of `yardstick.py`."""
    with (
        tempfile.TemporaryDirectory(prefix="forebay-bench-") as name,
        _running(YARDSTICK, Path(name), {}, core, None) as server,
    ):
        yield server


@contextmanager
def _running(
    words: Sequence[str], folder: Path, env: Mapping[str, str], core: int | None, key: str | None
) -> Iterator[OwnServer]:
    """What Python runs by these words and a port."""
    port = free_port()
    environment = child_environment({"FOREBAY_LOG_FORMAT": "json", "FOREBAY_ADMIN_PORT": "0", **env})
    ready_url = f"http://127.0.0.1:{port}/ready"
    command = [sys.executable, *words, "--port", str(port)]
    with running(command, environment, ready_url, folder / "log", READY_TIMEOUT_S, core) as process:
        yield OwnServer(process, port, Path(env.get("FOREBAY_DATA_DIR", folder)), key, core)


def _create_key(env: Mapping[str, str]) -> str:
    words = ["keys", "create", "--name", "bench", *GENEROUS, *BUDGETS, "--json"]
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "forebay", *words], env=child_environment(env), capture_output=True, check=True
    )
    return str(orjson.loads(ran.stdout)["key"])
