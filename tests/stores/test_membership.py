"""Whom shared budgets wait for after Redis has lost what it held, and how one is no longer waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from forebay.errors import BudgetUnavailable, QuotaExceeded
from support.command import forebay
from support.guards import DAY_MS, Replica, ask, becomes, caller, refused, shared_guard, tokens, wall_ms
from support.ledger import LedgerFile
from support.redis import RedisProcess

WHO = caller(tokens(1000))
Join = Callable[..., Replica]


@pytest_asyncio.fixture
async def join(redis: RedisProcess, prefix: str, tmp_path: Path) -> AsyncIterator[Join]:
    """`join(name)` starts a replica with a data folder of that name; it need not be closed."""
    async with AsyncExitStack() as stack:

        def start(name: str, **options: Any) -> Replica:
            options = {"prefix": prefix, "replicas": None, "quarantine_ms": 100} | options
            replica = shared_guard(options.pop("url", redis.url), tmp_path / name, **options)
            stack.push_async_callback(replica.close)
            return replica

        yield start


async def forget(redis: RedisProcess, prefix: str) -> None:
    """All that Redis has under the prefix."""
    with redis.client() as client:
        for name in client.scan_iter(f"{prefix}*"):
            client.delete(name)


def replicas_command(redis: RedisProcess, prefix: str, *args: str) -> Any:
    return forebay("replicas", *args, data_dir=redis.folder, FOREBAY_REDIS_URL=redis.url, FOREBAY_REDIS_PREFIX=prefix)


async def test_a_wiped_redis_is_not_believed(join: Join, redis: RedisProcess, prefix: str) -> None:
    """What one server was granted is not granted again by another while only the first one knows of it."""
    one, two = join("one"), join("two")
    await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
    await becomes(lambda: len(one.fleet.known) == len(two.fleet.known) == 2)
    (await ask(one.guard, WHO, 0, 800)).settle(700, 0)
    await forget(redis, prefix)
    with pytest.raises(BudgetUnavailable):
        await ask(two.guard, WHO, 0, 301)
    await becomes(lambda: two.conversation.is_open)
    assert "has 300 tokens left" in (await refused(two.guard, WHO, 0, 301)).message
    await ask(two.guard, WHO, 0, 300)


async def test_budgets_wait_for_who_is_away(join: Join, redis: RedisProcess, prefix: str) -> None:
    """However long, also over restarts of those that are there: their data files know him."""
    one, two = join("one"), join("two")
    await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
    await becomes(lambda: not one.fleet.is_new and len(one.fleet.known) == 2)
    (await ask(two.guard, WHO, 0, 900)).settle(900, 0)
    await two.close()
    await one.close()
    await forget(redis, prefix)
    again = join("one")
    await becomes(lambda: again.fleet.state.seeded)
    await asyncio.sleep(0.3)
    assert not again.conversation.is_open
    with pytest.raises(BudgetUnavailable):
        await ask(again.guard, WHO)
    back = join("two", seed=lambda guard: guard.seed([(wall_ms() // DAY_MS, "one", "key", 900, 0)]))
    await becomes(lambda: again.conversation.is_open)
    assert isinstance(await refused(again.guard, WHO, 0, 101), QuotaExceeded)
    assert back.fleet.replica_id == two.fleet.replica_id


async def test_an_operator_ends_the_waiting(join: Join, redis: RedisProcess, prefix: str) -> None:
    """`forebay replicas forget`, for one that will not come back; nobody who is alive can be forgotten. An audit says
    it."""
    one, two = join("one"), join("two")
    await becomes(lambda: one.conversation.is_open and len(one.fleet.known) == 2)
    run = partial(asyncio.to_thread, replicas_command, redis, prefix)
    refusal = await run("forget", two.fleet.replica_id)
    assert (refusal.returncode, "is alive: stop it first" in refusal.stderr) == (2, True)
    assert "There is no replica 'nobody'" in (await run("forget", "nobody")).stderr
    await two.close()
    await forget(redis, prefix)
    await becomes(lambda: one.fleet.state.missing == 1)
    listing = (await run("list")).stdout
    assert one.fleet.replica_id in listing
    assert "before a wipe" in listing
    assert not one.conversation.is_open
    done = await run("forget", two.fleet.replica_id)
    assert done.stdout == f"Replica {two.fleet.replica_id} is forgotten.\n"
    (act,) = LedgerFile(redis.folder).query("SELECT target FROM audit WHERE act = 'replica.forget'")
    assert act["target"] == two.fleet.replica_id
    await becomes(lambda: one.conversation.is_open)
    await becomes(lambda: one.fleet.known == {one.fleet.replica_id} and not one.fleet.is_new)


async def test_a_stated_number_is_waited_for(join: Join, redis: RedisProcess, prefix: str) -> None:
    """With `FOREBAY_REPLICAS`, a new Redis opens as soon as so many have said what they hold, and no sooner."""
    one = join("one", replicas=2)
    await becomes(lambda: one.fleet.state.seeded)
    await asyncio.sleep(0.3)
    assert not one.conversation.is_open
    two = join("two", replicas=2)
    await becomes(lambda: one.conversation.is_open and two.conversation.is_open)


async def test_an_older_copy_of_redis_is_not_believed(tmp_path: Path, join: Join) -> None:
    """Restarted from a file that knows less than was granted since."""
    redis = RedisProcess(tmp_path / "own").start()
    try:
        one, two = (join(name, url=redis.url, replicas=2) for name in ("one", "two"))
        await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
        await ask(one.guard, WHO, 0, 100)
        redis.command("SAVE")
        await ask(one.guard, WHO, 0, 700)
        redis.kill()
        redis.start()
        for _ in range(200):
            outcome = await asyncio.gather(ask(two.guard, WHO, 0, 300), return_exceptions=True)
            assert isinstance(outcome[0], BudgetUnavailable | QuotaExceeded)
            if isinstance(outcome[0], QuotaExceeded):
                break
            await asyncio.sleep(0.02)
        assert "has 200 tokens left" in str(outcome[0])
    finally:
        redis.stop()


async def test_scripts_may_be_flushed(join: Join, redis: RedisProcess) -> None:
    """SCRIPT FLUSH is no failure."""
    one = join("one")
    await becomes(lambda: one.conversation.is_open)
    redis.command("SCRIPT", "FLUSH")
    await ask(one.guard, WHO)
    assert one.conversation.breaker.num_failures == 0


async def test_a_clock_that_was_ahead(join: Join, redis: RedisProcess, prefix: str) -> None:
    """What a replica said before a restart, by a clock since set back, does not silence it."""
    one = join("one")
    await becomes(lambda: one.conversation.is_open)
    await one.close()
    redis.command("HSET", f"{prefix}seq", one.fleet.replica_id, 8_000_000_000_000_000)
    again = join("one")
    await becomes(lambda: again.conversation.is_open)
    await ask(again.guard, WHO)
    assert again.conversation.breaker.num_failures == 0


async def test_a_budget_that_comes_later_counts_what_all_have_spent(join: Join) -> None:
    """Once every server has heard of it, which the keys that changed tell it."""
    one, two = join("one"), join("two")
    await becomes(lambda: one.conversation.is_open and two.conversation.is_open)
    (await ask(one.guard, caller(), 0, 900)).settle(900, 0)
    num_said = one.conversation.num_exchanges
    one.conversation.say_all()
    await becomes(lambda: one.conversation.num_exchanges > num_said + 1)
    assert "has 100 tokens left" in (await refused(two.guard, WHO, 0, 101)).message


async def test_many_windows_are_said_in_parts(join: Join) -> None:
    """A thousand keys that have spent something."""
    spent = [(wall_ms() // DAY_MS, "one", f"key{number}", 10, 3) for number in range(1000)]
    one = join("one", seed=lambda guard: guard.seed(spent))
    await becomes(lambda: one.conversation.is_open)
    with pytest.raises(QuotaExceeded, match="has 90 tokens left"):
        await ask(one.guard, caller(tokens(100), key_id="key999"), 0, 91)
