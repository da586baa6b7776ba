"""Blocking calls off the event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from forebay.engines.threads import DaemonThreads
from forebay.errors import EngineUnavailable

T = TypeVar("T")


async def run(threads: DaemonThreads, call: Callable[[], T]) -> T:
    return await (await threads.begin(call))


async def test_results_and_failures_come_back() -> None:
    """What the call returns is returned, what it raises is raised, elsewhere than on the loop's thread."""
    threads = DaemonThreads(2, "test")
    assert await run(threads, threading.current_thread) is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        await run(threads, lambda: 1 // 0)
    threads.close()


async def test_no_more_threads_than_allowed() -> None:
    """Ten calls at once share two threads, and the loop goes on meanwhile."""
    threads, release, seen = DaemonThreads(2, "few"), threading.Event(), set()

    def call() -> None:
        seen.add(threading.current_thread().name)
        release.wait(10)

    calls = [asyncio.create_task(run(threads, call)) for _ in range(10)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in calls)
    release.set()
    await asyncio.gather(*calls)
    assert seen == {"few-0", "few-1"}
    threads.close()


async def test_a_cancelled_call_does_not_begin() -> None:
    """One that still waits for a thread is dropped; the others are not disturbed."""
    threads, release, began = DaemonThreads(1, "one"), threading.Event(), []
    first = asyncio.create_task(run(threads, lambda: release.wait(10)))
    second = asyncio.create_task(run(threads, lambda: began.append("second")))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    release.set()
    assert await first
    await run(threads, lambda: began.append("third"))
    assert began == ["third"]
    threads.close()


async def test_closed_threads_end() -> None:
    """After `close` none of them is left."""
    threads = DaemonThreads(3, "closing")
    await asyncio.gather(*(run(threads, lambda: None) for _ in range(5)))
    threads.close()
    for _ in range(100):
        if not [thread for thread in threading.enumerate() if thread.name.startswith("closing")]:
            return
        await asyncio.sleep(0.01)
    pytest.fail("threads were left")


async def test_what_waits_at_the_close_is_told() -> None:
    """What has begun is finished; what waits, and what comes later, is refused and not left hanging."""
    threads, release = DaemonThreads(1, "shut"), threading.Event()
    begun = await threads.begin(lambda: release.wait(10))
    waiting = asyncio.create_task(run(threads, lambda: None))
    await asyncio.sleep(0)
    threads.close()
    release.set()
    assert await begun
    for late in (waiting, run(threads, lambda: None)):
        with pytest.raises(EngineUnavailable):
            async with asyncio.timeout(5):
                await late


def test_a_call_that_never_returns_does_not_keep_the_process() -> None:
    """The process ends although one of its threads is busy for good."""
    program = (
        "import asyncio, threading\n"
        "from forebay.engines.threads import DaemonThreads\n"
        "async def main():\n"
        "    async with asyncio.timeout(0.05):\n"
        "        await (await DaemonThreads(1, 'stuck').begin(threading.Event().wait))\n"
        "try:\n    asyncio.run(main())\nexcept TimeoutError:\n    print('ended')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "ended\n"
