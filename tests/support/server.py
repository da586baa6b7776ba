"""A real server process for tests: started, waited for, spoken to over its port, stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from forebay.bench.process import free_port, stop

SERVER_ROOT = Path(__file__).parents[2] / "server"


@dataclass
class ServerProcess:
    """`forebay serve` with flags and environment of its own; its log is in `log_path`."""

    log_path: Path
    flags: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    within: Sequence[str] = ()
    """What runs it, in the same process."""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """For the OpenAI SDK."""
        return f"{self.url}/v1"

    @property
    def admin_url(self) -> str:
        """Of the admin API, which its banner names."""
        deadline = time.monotonic() + 5
        while (found := re.search(r"admin +(http://\S+)/admin", self.written)) is None:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return found[1]

    @property
    def data_dir(self) -> Path:
        """Where its ledger is."""
        return Path(self.env.get("FOREBAY_DATA_DIR") or self.log_path.with_name("data"))

    @property
    def defaults(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(SERVER_ROOT),
            "FOREBAY_LOG_FORMAT": "json",
            "FOREBAY_DATA_DIR": str(self.data_dir),
            "FOREBAY_ADMIN_PORT": "0",
        }

    @property
    def log(self) -> str:
        """With the lines of what has happened until now, which it gathers for 20 ms."""
        time.sleep(0.05)
        return self.written

    @property
    def written(self) -> str:
        """To the last whole line."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return text[: text.rfind("\n") + 1]

    def start(self, *, ready_timeout_s: float | None = 60.0) -> ServerProcess:
        """Starts it and waits for /ready; None: only starts it."""
        self.port = self.port or free_port()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.within, sys.executable, "-m", "forebay", "serve", "--port", str(self.port), *self.flags],
                env={**inherited, **self.defaults, **self.env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if ready_timeout_s is not None:
            self.wait_ready(ready_timeout_s)
        return self

    def wait_ready(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log}")
            try:
                if httpx.get(f"{self.url}/ready", timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"the server was not ready within {timeout_s} s:\n{self.log}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; returns the exit code."""
        return 0 if self.process is None else stop(self.process, timeout_s)


@contextmanager
def journalled_server(folder: Path, **env: str) -> Iterator[ServerProcess]:
    """The scripted engine with a journal beside its log, where `Witness` finds it."""
    journal = {"FOREBAY_SCRIPTED_JOURNAL": str(folder / "journal")}
    running = ServerProcess(folder / "log", ["--engine", "scripted"], journal | env).start()
    try:
        yield running
    finally:
        running.stop()
