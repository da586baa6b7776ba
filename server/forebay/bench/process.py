"""A program that a benchmark starts: with its own log, waited for until it answers, stopped whatever happens."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from forebay.errors import ConfigurationError

STOP_TIMEOUT_S = 60.0
PR_SET_PDEATHSIG = 1
PORTS = range(10_000, 32_000)
_num_asked = itertools.count(random.randrange(len(PORTS)))
LOG_END = 2000
"""Characters of a program's log that are shown where it did not start."""


@contextmanager
def running(
    command: Sequence[str],
    env: Mapping[str, str],
    ready_url: str,
    log_path: Path,
    timeout_s: float,
    core: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Once `ready_url` answers with 200 and until the block ends; what it had started itself ends with it.

    `core`: the only one that it may use. Raises ConfigurationError with the end of its log where it ends before it
    answers, or takes longer than `timeout_s`.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - programs that the benchmarks name
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent if platform.system() == "Linux" else None,
        )
    try:
        if core is not None:
            psutil.Process(process.pid).cpu_affinity([core])
        _wait_until_ready(process, ready_url, log_path, timeout_s)
        yield process
    finally:
        children = _children(process)
        stop(process, STOP_TIMEOUT_S)
        for child in children:
            if child.is_running():
                child.kill()


def stop(process: subprocess.Popen[Any], timeout_s: float) -> int:
    """SIGTERM, then SIGKILL after `timeout_s`; the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def end_with_parent() -> None:
    """In the child: SIGTERM when this benchmark ends without having stopped it, as by SIGKILL (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """This process's, less what sets up another Forebay, with the package that runs here."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    paths = [str(Path(__file__).parents[2]), *filter(None, [inherited.get("PYTHONPATH")])]
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths), **env}


def free_port() -> int:
    """One that nobody has bound on loopback.

    Below the ports that the system gives to connections and to port 0 (ip(7), ip_local_port_range), of which another
    process could have been given this one before it is used. Each process counts on from a place of its own.
    """
    while True:
        port = PORTS[next(_num_asked) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_path: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - a URL of ours
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    end = log_path.read_text(encoding="utf-8", errors="replace")[-LOG_END:]
    raise ConfigurationError(f"The server did not start:\n{end}")
