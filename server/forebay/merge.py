"""Several delta streams as one, for requests with several prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import anyio

from forebay.types import Delta, Deltas


def merge(streams: Sequence[Deltas], num_choices: int) -> Deltas:
    """Deltas as they come; stream i's choice j becomes index `i * num_choices + j`.

    The first error ends all. Closing it, once it has been read from, closes every stream.
    """
    return streams[0] if len(streams) == 1 else _merged(streams, num_choices)


async def _merged(streams: Sequence[Deltas], num_choices: int) -> AsyncGenerator[Delta, None]:
    # One place a stream: a slow consumer slows the pumps, and the engine's mailboxes merge what waits behind them.
    queue: asyncio.Queue[Delta | Exception | None] = asyncio.Queue(maxsize=len(streams))

    async def pump(position: int, stream: Deltas) -> None:
        try:
            async with aclosing(stream) as deltas:
                async for delta in deltas:
                    await queue.put(replace(delta, index=position * num_choices + delta.index))
        except Exception as exc:  # re-raised by the consumer below
            await queue.put(exc)
        else:
            await queue.put(None)

    tasks = [asyncio.create_task(pump(position, stream)) for position, stream in enumerate(streams)]
    try:
        num_open = len(tasks)
        while num_open:
            item = await queue.get()
            if item is None:
                num_open -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        # Shielded: anyio repeats a cancellation until its scope is left, and would cut the streams' ends short.
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks, return_exceptions=True)
