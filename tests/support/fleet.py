"""Several real servers that share a Redis, and their ledgers read together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from forebay.stores.sqlite import open_for_reading
from support.administrator import OWNER, AdminClient
from support.redis import RedisProcess
from support.server import ServerProcess, free_port


@contextmanager
def fleet(redis: RedisProcess, folder: Path, number: int, **env: str) -> Iterator[list[ServerProcess]]:
    """They begin together; the key `OWNER` is good at all of them."""
    settings = {"FOREBAY_REDIS_URL": redis.url, "FOREBAY_REPLICAS": str(number), "FOREBAY_API_KEYS": OWNER}
    servers = [
        ServerProcess(folder / str(index) / "log", ["--engine", "scripted"], settings | env) for index in range(number)
    ]
    try:
        for server in servers:
            server.start(ready_timeout_s=None)
        for server in servers:
            server.wait_ready(60)
        yield servers
    finally:
        for server in servers:
            server.stop()


@contextmanager
def one_or_more(folder: Path, number: int, **env: str) -> Iterator[list[ServerProcess]]:
    """One server counts by itself, several in a Redis of their own."""
    if number == 1:
        env |= {"FOREBAY_API_KEYS": OWNER, "FOREBAY_ADMIN_PORT": str(free_port())}
        server = ServerProcess(folder / "log", ["--engine", "scripted"], env).start()
        try:
            yield [server]
        finally:
            server.stop()
        return
    redis = RedisProcess(folder / "redis").start()
    try:
        with fleet(redis, folder, number, **env) as servers:
            yield servers
    finally:
        redis.stop()


def limit_tenant(servers: Sequence[ServerProcess], tenant: str, **limits: Any) -> None:
    for server in servers:
        with AdminClient(server, OWNER) as admin:
            admin.get("PUT", f"/tenants/{tenant}", {"limits": limits})


def peak_tokens(folders: Sequence[Path]) -> tuple[int, int]:
    """The most that was ever held and settled together, by all ledgers in the order of time, and what it came to."""
    return _peak(folders, lambda row: (row["reserved_tokens"], row["prompt_tokens"] + row["completion_tokens"]))


def peak_cost(folders: Sequence[Path]) -> tuple[int, int]:
    """The same in micro-units of money."""
    return _peak(folders, lambda row: (row["reserved_cost"], row["cost"]))


def _peak(folders: Sequence[Path], amounts: Callable[[sqlite3.Row], tuple[int, int]]) -> tuple[int, int]:
    """`amounts` of a row: what was held, and what it came to."""
    moves = []
    for folder in folders:
        with closing(open_for_reading(folder)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute("SELECT * FROM entries WHERE kind = 'settle'"):
                held, spent = amounts(row)
                moves += [(row["reserved_at"], held), (row["at"], spent - held)]
    total = peak = 0
    for _, amount in sorted(moves):  # within a millisecond, what is given back comes first
        total += amount
        peak = max(peak, total)
    return peak, total
