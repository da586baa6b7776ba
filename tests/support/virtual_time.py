"""An event loop whose sleeps take no time: what happens in minutes is simulated in moments."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: it sets the loop's clock forward instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout:
            self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0 and stands still while something runs."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def ms(self) -> int:
        return round(self._virtual.now * 1000)


def simulate(loop: VirtualLoop, seconds: float, *parts: Coroutine[Any, Any, None]) -> None:
    """Lets the parts run for so long, then ends them. Raises what one of them raised."""
    tasks = [loop.create_task(part) for part in parts]
    try:
        loop.run_until_complete(asyncio.sleep(seconds))
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
