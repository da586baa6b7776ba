"""Noticing that the client has gone while there is nothing to send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

from fastapi import Request

from forebay.departure import STATE, ClientGone, Departure

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`. Raises `ClientGone` when the client leaves first. The request's body must have been read.

    However it ends, `work` has finished: what the client's leaving interrupts is cancelled and waited for.
    """
    departure: Departure | None = request.scope["state"].get(STATE)
    if departure is not None:
        with departure.watch(partial(_note_left, request)):
            return await work
    # Somebody else's `receive`: that of the task which answers for an Idempotency-Key (api/idempotent.py).
    task = asyncio.ensure_future(work)
    try:
        await wait_unless_gone(request, task, timeout_s=None)
        return task.result()
    finally:
        await cancel(task)


async def wait_unless_gone(request: Request, task: asyncio.Future[T], *, timeout_s: float | None) -> None:
    """Waits until `task` is done, for `timeout_s` at most. Raises `ClientGone`; never touches the task."""
    watch = asyncio.ensure_future(_gone(request))
    try:
        done, _ = await asyncio.wait((task, watch), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if watch in done and task not in done:
            _note_left(request)
            raise ClientGone
    finally:
        watch.cancel()


def _note_left(request: Request) -> None:
    request.state.record.client_left = time.perf_counter()


async def cancel(task: asyncio.Future[T]) -> None:
    """Cancels and waits for the end, whatever it is."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
