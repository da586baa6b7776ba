"""What a request waits for, and what ends it: its client's leaving, its time, the server's end. And nothing after."""

from __future__ import annotations

import asyncio

import pytest

from forebay.drain import Drain
from forebay.errors import RequestTimeout, ShuttingDown
from forebay.patience import ClientGone, Patience


async def test_leaving_interrupts_what_is_awaited() -> None:
    """The work is cancelled and may clean up, who waits gets `ClientGone`, and the task goes on as ever."""
    patience, seen = Patience(), []

    async def work() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append("cleaned up")

    asyncio.get_running_loop().call_later(0.01, patience.client_left)
    with pytest.raises(ClientGone), patience:
        await work()
    assert seen == ["cleaned up"]
    assert patience.over
    assert patience.left_at is not None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_who_has_left_before_begins_nothing() -> None:
    """The block is not entered."""
    patience = Patience()
    patience.client_left()
    entered = False
    with pytest.raises(ClientGone), patience:
        entered = True
    assert not entered


async def test_leaving_between_two_waits_interrupts_nothing() -> None:
    """Until the next one."""
    patience = Patience()
    with patience:
        await asyncio.sleep(0)
    patience.client_left()
    await asyncio.sleep(0)
    with pytest.raises(ClientGone), patience:
        pass


async def test_work_that_is_done_before_it_hears_is_done() -> None:
    """A block that does not wait any more ends as it would have; its task is not left with a cancellation."""
    patience = Patience()
    with patience:
        patience.client_left()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_of_others_stays_one() -> None:
    """A server that ends its tasks is not a client that left, also where both happen."""
    for leaves in (False, True):
        patience = Patience()

        async def work(patience: Patience = patience) -> None:
            with patience:
                await asyncio.sleep(5)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        if leaves:
            patience.client_left()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_time_passes_for_all_blocks_together() -> None:
    """The limit counts from the beginning, also outside; what comes after it is refused at once."""
    patience = Patience(Drain(), 0.05)
    with patience:
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)
    with pytest.raises(RequestTimeout, match=r"0\.05 s"), patience:
        await asyncio.sleep(5)
    with pytest.raises(RequestTimeout), patience:
        pass
    patience.close()


async def test_a_drain_that_is_forced_ends_what_waits() -> None:
    """What waits is told at once, what would wait later is refused; a block that has ended is none of its business."""
    drain = Drain()
    ended, waiting, late = Patience(drain), Patience(drain, 60), Patience(drain)
    with ended:
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, drain.force)
    with pytest.raises(ShuttingDown), waiting:
        await asyncio.sleep(5)
    with pytest.raises(ShuttingDown), late:
        pass
    assert not drain.waiting
    assert not ended.over
    waiting.close()
