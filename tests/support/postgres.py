"""A real PostgreSQL for tests: made in a folder of its own, started, stopped in unfriendly ways."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from support.server import free_port

USER, PASSWORD = "forebay", "kanarienvogel-pw"


def programs() -> Path:
    """Where Debian keeps them."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))


def _unprivileged() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.getuid() == 0 else []


@dataclass
class PostgresServer:
    """One cluster with the user `USER`, who needs the password over TCP. May be started again after a stop."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="forebay-postgres-", dir="/tmp")))
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def make(self) -> PostgresServer:
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [
                *(*_unprivileged(), programs() / "initdb", "--pgdata", self.folder / "data", "--username", USER),
                *("--auth", "scram-sha-256", "--pwfile", password, "--encoding", "UTF8", "--locale", "C.UTF-8"),
                *("--no-sync", "--no-instructions"),
            ],
            cwd=self.folder,
            check=True,
            capture_output=True,
        )
        return self

    def start(self) -> PostgresServer:
        self.port = self.port or free_port()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*_unprivileged(), programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"),
                    *("-c", "fsync=off", "-c", "max_connections=20", "-c", "shared_buffers=16MB"),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                self.query("SELECT 1")
                return self
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Open connections are cut."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(20)

    def destroy(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres", *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty one."""
        name = f"d{time.monotonic_ns()}"
        self.query(f"CREATE DATABASE {name}")
        return self.url(name)

    def query(self, sql: str, *values: Any, url: str | None = None) -> list[dict[str, Any]]:
        """The rows, if any."""
        with psycopg.connect(url or self.url(), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(sql.encode(), values)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor] if names else []
