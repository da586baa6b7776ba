"""Servers that a benchmark starts for itself: on data of their own, on a core of their own, stopped at the end."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

from forebay.errors import ConfigurationError

READY_TIMEOUT_S = 240.0
STOP_TIMEOUT_S = 60.0
CPU_CLOCK = 2
"""In the number of another process's clock, all its threads' time (CPUCLOCK_SCHED of the kernel's posix-timers)."""
PR_SET_PDEATHSIG = 1
LOG_END = 2000
"""Characters of a server's log that are shown where it did not start."""
PRICES = {"version": "1", "models": {"*": {"prompt": 100_000, "completion": 400_000}}}
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
        """SIGTERM, then SIGKILL; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                return self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


@contextmanager
def accounting_server(*flags: str, core: int | None = None) -> Iterator[OwnServer]:
    """The scripted engine behind all that users have: a key with every limit and budget, prices, ledger, logs."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as name:
        folder = Path(name)
        prices = folder / "prices.json"
        prices.write_bytes(orjson.dumps(PRICES))
        env = {"FOREBAY_DATA_DIR": str(folder / "data"), "FOREBAY_PRICES_FILE": str(prices)}
        key = _create_key(env)
        with _running(["serve", "--engine", "scripted", *flags], folder, env, core, key) as server:
            yield server


@contextmanager
def open_server(*flags: str, core: int | None = None) -> Iterator[OwnServer]:
    """`forebay serve` with these flags, on loopback without a key."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as name:
        folder = Path(name)
        with _running(["serve", *flags], folder, {"FOREBAY_DATA_DIR": str(folder / "data")}, core, None) as server:
            yield server


@contextmanager
def yardstick_server(core: int | None = None) -> Iterator[OwnServer]:
    """The raw ASGI app of `yardstick.py`."""
    with (
        tempfile.TemporaryDirectory(prefix="forebay-bench-") as name,
        _running([], Path(name), {}, core, None) as server,
    ):
        yield server


def two_cores() -> tuple[int, int] | None:
    """One for the server and one for the client; None where there are not two, or no choice."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return None
    cores = sorted(process.cpu_affinity() or ())
    return (cores[0], cores[-1]) if len(cores) > 1 else None


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """This process on one core meanwhile; None leaves it where it is."""
    if core is None:
        yield
        return
    process = psutil.Process()
    before = process.cpu_affinity()
    process.cpu_affinity([core])
    try:
        yield
    finally:
        process.cpu_affinity(before)


@contextmanager
def _running(
    words: Sequence[str], folder: Path, env: Mapping[str, str], core: int | None, key: str | None
) -> Iterator[OwnServer]:
    """`forebay WORDS`, or without words the yardstick; once it answers and until the block ends."""
    port = _free_port()
    program = ["-m", "forebay", *words, "--port", str(port)] if words else ["-m", "forebay.bench.yardstick", str(port)]
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *program],
            env=child_environment({"FOREBAY_LOG_FORMAT": "json", "FOREBAY_ADMIN_PORT": "0", **env}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_end_with_parent if platform.system() == "Linux" else None,
        )
    server = OwnServer(process, port, Path(env.get("FOREBAY_DATA_DIR", folder)), key, core)
    try:
        if core is not None:
            psutil.Process(process.pid).cpu_affinity([core])
        _wait_until_ready(server, log_path)
        yield server
    finally:
        server.stop()


def _end_with_parent() -> None:
    """In the child: SIGTERM when this benchmark ends without having stopped it, as by SIGKILL (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(server: OwnServer, log_path: Path) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/ready", timeout=5):  # noqa: S310 - a URL of ours
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    end = log_path.read_text(encoding="utf-8", errors="replace")[-LOG_END:]
    raise ConfigurationError(f"The server did not start:\n{end}")


def _create_key(env: Mapping[str, str]) -> str:
    words = ["keys", "create", "--name", "bench", *GENEROUS, *BUDGETS, "--json"]
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "forebay", *words], env=child_environment(env), capture_output=True, check=True
    )
    return str(orjson.loads(ran.stdout)["key"])


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's, less what sets up another Forebay, with the package that runs here."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    paths = [str(Path(__file__).parents[2]), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **env}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
