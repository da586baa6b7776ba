"""What a client's leaving interrupts: the work on its answer, in the task that does it, and nothing after."""

from __future__ import annotations

import asyncio

import pytest

from forebay.departure import ClientGone, Departure


async def test_leaving_interrupts_what_is_awaited() -> None:
    """The work is cancelled and may clean up, who waits gets `ClientGone`, and the task goes on as ever."""
    departure, seen = Departure(), []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append("cleaned up")

    asyncio.get_running_loop().call_later(0.01, departure.tell)
    with pytest.raises(ClientGone), departure.watch(lambda: seen.append("left")):
        await work()
    assert seen == ["left", "cleaned up"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_who_has_left_before_interrupts_at_once() -> None:
    """At the first wait; work that never waits is done all the same."""
    departure = Departure()
    departure.tell()
    with pytest.raises(ClientGone), departure.watch(lambda: None):
        await asyncio.sleep(5)
    with departure.watch(lambda: None):
        done = True
    await asyncio.sleep(0)
    assert done


async def test_leaving_between_two_waits_interrupts_nothing() -> None:
    """Until the next one."""
    departure = Departure()
    with departure.watch(lambda: None):
        await asyncio.sleep(0)
    departure.tell()
    await asyncio.sleep(0)


async def test_a_cancellation_of_others_stays_one() -> None:
    """A server that ends its tasks is not a client that left, also where both happen."""
    departure = Departure()

    async def work() -> None:
        with departure.watch(lambda: None):
            await asyncio.sleep(5)

    for leaves in (False, True):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        if leaves:
            departure.tell()
        with pytest.raises(asyncio.CancelledError):
            await task
