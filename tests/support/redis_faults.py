"""What may happen to a Redis, each as a context in which it is so; afterwards it is healed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

from support.redis import RedisProcess
from support.tcp_proxy import TcpProxy

Fault = Callable[[RedisProcess, TcpProxy], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """It comes back with nothing of what it held."""
    redis.kill()
    yield
    redis.start()


@asynccontextmanager
async def stopped(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """SIGSTOP: connections stay, answers do not come."""
    redis.pause()
    yield
    redis.resume()


@asynccontextmanager
async def wiped(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    redis.command("FLUSHALL")
    yield


@asynccontextmanager
async def slow(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """Every answer takes a second."""
    proxy.delay_s = 1.0
    yield
    proxy.delay_s = 0.0


@asynccontextmanager
async def silent(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """A black hole: what is sent arrives, and nothing comes back."""
    proxy.swallows = True
    yield
    proxy.swallows = False
    proxy.cut()


@asynccontextmanager
async def resetting(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """Connections break in the middle of an answer, one after the other."""

    async def again() -> None:
        while True:
            proxy.resets = True
            await asyncio.sleep(0.1)

    breaking = asyncio.create_task(again())
    try:
        yield
    finally:
        breaking.cancel()
        proxy.resets = False


@asynccontextmanager
async def loading(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """It starts again from a file that takes it seconds to load; what it held is older than what was granted since."""
    redis.command("DEBUG", "POPULATE", 2000, "ballast")
    redis.command("SAVE")
    redis.kill()
    flags, redis.flags = redis.flags, (*redis.flags, "--key-load-delay", "1000")
    redis.start()
    yield
    redis.flags = flags
    while True:
        try:
            redis.command("PING")
            return
        except Exception as exc:
            if "loading" not in str(exc).lower():
                raise
            await asyncio.sleep(0.05)


@asynccontextmanager
async def read_only(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """A replica of something that is not there."""
    redis.command("REPLICAOF", "127.0.0.1", 1)
    yield
    redis.command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def full(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    redis.command("CONFIG", "SET", "maxmemory", "1")
    yield
    redis.command("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def evicting(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """It may throw away what it was told to keep."""
    redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    redis.command("CONFIG", "SET", "maxmemory", "1gb")
    yield
    redis.command("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def locked(redis: RedisProcess, proxy: TcpProxy) -> AsyncIterator[None]:
    """It wants a password that nobody was told."""
    redis.command("CONFIG", "SET", "requirepass", "secret")
    proxy.cut()
    yield
    unlocked = replace(redis, password="secret")
    unlocked.command("CONFIG", "SET", "requirepass", "")


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        killed,
        stopped,
        wiped,
        slow,
        silent,
        resetting,
        loading,
        read_only,
        full,
        evicting,
        locked,
    )
}
SHORT = ("killed", "wiped", "slow", "resetting")
