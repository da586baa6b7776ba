"""With Redis away: rate limits are shared out, hard budgets are closed, and everything comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from forebay.errors import BudgetUnavailable
from forebay.types import Policy
from support.guards import Replica, ask, becomes, caller, refused, shared_guard, tokens
from support.redis import RedisProcess
from support.redis_faults import FAULTS, SHORT
from support.tcp_proxy import TcpProxy

LIMITED = caller(Policy(6000, 600_000, 50), Policy(60_000), key_id="limited")
BUDGET = 100 * 100


@pytest.fixture
def fragile(tmp_path: Path) -> Iterator[RedisProcess]:
    """A Redis of the test's own."""
    running = RedisProcess(tmp_path / "redis").start()
    yield running
    running.stop()


@pytest_asyncio.fixture
async def proxy(fragile: RedisProcess) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(fragile.port) as running:
        yield running


@pytest_asyncio.fixture
async def replica(proxy: TcpProxy, tmp_path: Path) -> AsyncIterator[Replica]:
    """Alone, with the timeout that servers have."""
    running = shared_guard(f"redis://127.0.0.1:{proxy.port}", tmp_path / "data", timeout_s=0.2)
    await becomes(lambda: running.conversation.is_open)
    yield running
    await running.close()


@pytest.mark.parametrize("name", SHORT)
async def test_faults(name: str, replica: Replica, fragile: RedisProcess, proxy: TcpProxy) -> None:
    """Requests under rate limits are all served. Those under a hard budget are served or told to come back, and never
    more than it pays for; then all is as before, and the log has a line for each turn."""
    guard, who = replica.guard, caller(tokens(BUDGET), key_id="spender")
    spent = closed = 0

    async def spend() -> None:
        nonlocal spent, closed
        try:
            hold = await ask(guard, who)
        except BudgetUnavailable:
            closed += 1
        else:
            hold.settle(100, 0)
            spent += 1

    async def serve() -> None:
        (await ask(guard, LIMITED)).settle(50, 0)

    for _ in range(10):
        await spend()
    with capture_logs() as lines:
        async with FAULTS[name](fragile, proxy):
            for _ in range(40):
                await asyncio.gather(serve(), serve(), spend())
                await asyncio.sleep(0.02)
        await becomes(lambda: replica.conversation.is_open)
        await serve()
        already = spent
        await spend()
        assert spent == already + 1
    assert len(lines) <= 6, lines
    outcomes = await asyncio.gather(*(ask(guard, who) for _ in range(150)), return_exceptions=True)
    assert spent + sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 100


async def test_shares_while_redis_is_away(replica: Replica, fragile: RedisProcess) -> None:
    """Of each limit one share in as many as there are servers; a hard budget names itself."""
    other = shared_guard(fragile.url, fragile.folder / "other", replicas=None, quarantine_ms=0)
    try:
        await becomes(lambda: other.fleet.num_shares == 2)
        who = caller(Policy(8), tokens(1000), key_id="sharing")
        free = caller(Policy(8), key_id="sharing")
        await ask(other.guard, who)
        fragile.kill()
        await becomes(lambda: not other.conversation.is_up)
        for left in range(3, -1, -1):
            assert (await ask(other.guard, free)).headers["x-ratelimit-remaining-requests"] == str(left)
        assert "8 requests per minute. Try again in 15 s." in (await refused(other.guard, free)).message
        with pytest.raises(BudgetUnavailable, match="The tenant's daily budget is shared"):
            await ask(other.guard, who)
    finally:
        await other.close()


async def test_a_tranche_goes_on_while_redis_is_away(fragile: RedisProcess, tmp_path: Path) -> None:
    """What a server may keep beyond its need it may spend, and no more; together it is within the budget."""
    one, two = [
        shared_guard(fragile.url, tmp_path / name, replicas=2, tranche=0.2, timeout_s=0.2) for name in ("one", "two")
    ]
    who = caller(tokens(1000))
    try:
        await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
        held = [await ask(one.guard, who), await ask(two.guard, who)]
        fragile.kill()
        await becomes(lambda: not one.conversation.is_up and not two.conversation.is_up)
        held += [await ask(replica.guard, who) for replica in (one, two) for _ in range(2)]
        for replica in (one, two):
            with pytest.raises(BudgetUnavailable):
                await ask(replica.guard, who)
        fragile.start()
        await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
        held += [await ask(one.guard, who) for _ in range(2)]
        assert "has 0 tokens left" in (await refused(two.guard, who)).message
        held += [await ask(one.guard, who) for _ in range(2)]
        assert "has 0 tokens left" in (await refused(one.guard, who)).message
        assert len(held) == 10
    finally:
        await one.close()
        await two.close()
