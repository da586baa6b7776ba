"""What servers say to Redis: late, lost, or by one that is no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson

from forebay.stores.redis_impl.link import RedisLink
from forebay.tenants.exchange import CONSTANTS
from forebay.types import Policy
from support.guards import Clock, ask, becomes, caller, refused, shared_guard, tokens
from support.redis import RedisProcess
from support.tcp_proxy import TcpProxy

WHO = caller(tokens(1000))


async def test_what_arrives_late_changes_nothing(redis: RedisProcess, prefix: str, tmp_path: Path) -> None:
    """A script that was sent before another, and runs after it, would take back what was granted since."""
    replica = shared_guard(redis.url, tmp_path, prefix=prefix)
    link = RedisLink(redis.url, prefix, 2.0)
    try:
        await becomes(lambda: replica.conversation.is_open)
        hold = await ask(replica.guard, WHO, 0, 700)
        with redis.client() as client:
            (name,) = client.keys(f"{prefix}b:k:one:key:tokens:day:*")
            late = {
                "replica": replica.fleet.replica_id,
                "seq": 1,
                "constants": CONSTANTS,
                "own": [[name.removeprefix(f"{prefix}b:"), 0, 0]],
                "running": [],
                "lease_ms": 1,
                "refunds": [],
                "asks": [],
            }
            assert (await link.exchange(orjson.dumps(late)))[0] == b"late"
            assert client.hgetall(name) == {replica.fleet.replica_id: "700"}
        hold.settle(0, 0)
    finally:
        await link.close()
        await replica.close()


async def test_places_of_a_server_that_is_no_more(redis: RedisProcess, prefix: str, tmp_path: Path) -> None:
    """They count until its lease ends, and not for ever."""
    clock = Clock()
    replica = shared_guard(redis.url, tmp_path, prefix=prefix, clock=clock)
    who = caller(Policy(max_concurrency=2))
    try:
        await becomes(lambda: replica.conversation.is_open)
        redis.command("HSET", f"{prefix}c:k:one:key", "gone", f"2|{clock.steady + 10_000}")
        assert "2 requests at a time" in (await refused(replica.guard, who)).message
        clock.forward(60)
        (await ask(replica.guard, who)).settle(0, 0)
    finally:
        await replica.close()


async def test_who_leaves_as_he_is_let_in_holds_nothing(redis: RedisProcess, prefix: str, tmp_path: Path) -> None:
    """Redis has granted it, and its client goes before the answer is looked at."""
    replica = shared_guard(redis.url, tmp_path, prefix=prefix)
    try:
        await becomes(lambda: replica.conversation.is_open)

        async def first() -> None:
            await ask(replica.guard, WHO)
            leaving.cancel()

        one = asyncio.ensure_future(first())
        leaving = asyncio.ensure_future(ask(replica.guard, WHO))
        await asyncio.gather(one, leaving, return_exceptions=True)
        assert leaving.cancelled()
        await ask(replica.guard, WHO, 0, 900)
    finally:
        await replica.close()


async def test_what_came_back_while_redis_was_away_is_said_later(tmp_path: Path) -> None:
    """A Redis that forgot nothing, and heard nothing, is told what was given back meanwhile."""
    redis = RedisProcess(tmp_path / "redis").start()
    async with TcpProxy(redis.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        one, two = [shared_guard(url, tmp_path / name, replicas=2, timeout_s=0.2) for name in ("one", "two")]
        try:
            await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
            hold = await ask(one.guard, WHO, 0, 1000)
            proxy.refuses = True
            proxy.cut()
            hold.settle(100, 0)
            await becomes(lambda: not one.conversation.is_up and not two.conversation.is_up)
            proxy.refuses = False
            await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
            said = one.conversation.num_exchanges
            await becomes(lambda: one.conversation.num_exchanges > said)
            await ask(two.guard, WHO, 0, 900)
        finally:
            await one.close()
            await two.close()
            redis.stop()
