"""A disk that takes nothing any more, and clients that ask until they are told so."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from support.server import ServerProcess

CHAT = "/v1/chat/completions"
ROOM = 1 << 20
"""Bytes that any file of the server may have while its disk is full."""


@contextmanager
def full_disk(server: ServerProcess) -> Iterator[None]:
    """Every write beyond `ROOM` fails in the kernel (EFBIG), as on a full disk (ENOSPC): SQLite treats them alike."""
    assert server.process is not None
    limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (ROOM, limit[1]))
    yield
    if server.process.poll() is None:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limit)


def body(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "go"}], "max_tokens": 200, "ignore_eos": True, **more}


async def ask_until_refused(client: httpx.AsyncClient) -> tuple[set[str], httpx.Response]:
    """The ids of what was answered, and the refusal."""
    answered = set()
    for _ in range(400):
        answers = await asyncio.gather(*(client.post(CHAT, json=body()) for _ in range(4)))
        answered |= {answer.json()["id"].partition("-")[2] for answer in answers if answer.status_code == 200}
        for answer in answers:
            if answer.status_code != 200:
                return answered, answer
    raise AssertionError("the disk was never full")
