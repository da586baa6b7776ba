"""More requests than a server can take: sent at a set rate, whether or not earlier ones have been answered."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Reply:
    """`seconds`: from sending the request to the last byte of its answer, which came at `at` (perf_counter)."""

    status: int
    seconds: float
    at: float
    retry_after_s: int | None


class _Connection(asyncio.Protocol):
    """One request at a time; answers have a length."""

    def __init__(self, idle: list[_Connection]) -> None:
        self._idle = idle
        self._got = b""
        self._sent = 0.0
        self._reply: asyncio.Future[Reply] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, message: bytes) -> asyncio.Future[Reply]:
        self._reply = asyncio.get_running_loop().create_future()
        self._sent = time.perf_counter()
        self.transport.write(message)
        return self._reply

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, separator, body = self._got.partition(b"\r\n\r\n")
        if not separator or len(body) < int(LENGTH.search(head)[1]):  # type: ignore[index]
            return
        now, status, wait = time.perf_counter(), STATUS.match(head), RETRY_AFTER.search(head)
        assert status is not None
        reply = Reply(int(status[1]), now - self._sent, now, int(wait[1]) if wait else None)
        self._got = b""
        self._idle.append(self)
        assert self._reply is not None
        self._reply.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(exc or ConnectionResetError("closed before it answered"))


async def flood(port: int, message: bytes, *, rate: float, seconds: float) -> list[Reply]:
    """`rate` requests a second for so many seconds, evenly; waits for all answers."""
    loop = asyncio.get_running_loop()
    idle: list[_Connection] = []
    every: list[_Connection] = []
    replies: list[asyncio.Future[Reply]] = []

    async def one() -> Reply:
        if not idle:
            _, connection = await loop.create_connection(lambda: _Connection(idle), "127.0.0.1", port)
            every.append(connection)
        else:
            connection = idle.pop()
        return await connection.ask(message)

    began = loop.time()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        replies.append(asyncio.ensure_future(one()))
    answers = await asyncio.gather(*replies)
    for connection in every:
        connection.transport.close()
    return answers
