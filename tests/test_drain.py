"""`Drain` by itself: what it counts, when it lets go. The process around it: test_shutdown.py."""

from __future__ import annotations

import asyncio

import pytest

from forebay.drain import Drain
from forebay.errors import ShuttingDown
from forebay.patience import Patience


async def test_counts_what_is_in_flight() -> None:
    """Every tracked block counts until it ends, also by an exception."""
    drain = Drain()
    with drain.track(), drain.track():
        assert drain.in_flight == 2
    with pytest.raises(ValueError, match="boom"), drain.track():
        raise ValueError("boom")
    assert drain.in_flight == 0


async def test_finish_waits_for_work_to_end_by_itself() -> None:
    """Work that ends within the limit is not forced."""
    drain = Drain()

    async def work() -> bool:
        with drain.track():
            await asyncio.sleep(0.05)
            return drain.forced

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    assert await drain.finish(timeout_s=5, grace_s=5)
    assert drain.draining
    assert await task is False


async def test_finish_with_nothing_in_flight_is_immediate() -> None:
    """An idle service stops at once."""
    async with asyncio.timeout(1):
        assert await Drain().finish(timeout_s=60, grace_s=60)


async def test_finish_forces_what_outlasts_the_limit() -> None:
    """What waits is told once the limit passes, and its work may say so before the end."""
    drain = Drain()
    ends: list[str] = []

    async def work() -> None:
        with drain.track():
            try:
                with Patience(drain):
                    await asyncio.sleep(60)
            except ShuttingDown:
                ends.append("told")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        assert not await drain.finish(timeout_s=0.05, grace_s=5)
        await task
    assert ends == ["told"]
    assert drain.in_flight == 0


async def test_force_ends_a_drain_that_waits() -> None:
    """`force` cuts the wait of a drain short."""
    drain = Drain()
    with drain.track():
        finishing = asyncio.create_task(drain.finish(timeout_s=60, grace_s=0.05))
        await asyncio.sleep(0.01)
        drain.force()
        async with asyncio.timeout(5):
            assert await finishing is False


async def test_fail_keeps_the_first_reason_and_drains() -> None:
    """What failed first is what the operator is told."""
    drain = Drain()
    drain.fail("first")
    drain.fail("second")
    assert drain.fatal == "first"
    assert drain.draining
    async with asyncio.timeout(1):
        await drain.wait_begun()


async def test_fail_shortens_a_drain_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost while the service ends anyway is not waited for as long as work that goes on."""
    monkeypatch.setattr("forebay.drain.FATAL_S", 0.05)
    drain = Drain()
    with drain.track():
        finishing = asyncio.create_task(drain.finish(timeout_s=60, grace_s=0.05))
        await asyncio.sleep(0.01)
        drain.fail("lost")
        async with asyncio.timeout(5):
            assert await finishing is False
