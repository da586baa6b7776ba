"""Bytes of HTTP/1 over real sockets, to an app behind the server's own protocol that says what it got."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from forebay.observe.record import RequestRecord
from support.listening import listening

MAX_HEADER_BYTES = 4096
HEAD_TIMEOUT_S = 0.5
KEEP_ALIVE_S = 1
SILENCE_S = 5.0


async def echo(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answers with the body it got and the request's header names; on /early before the body, on /slow late, on
    /slower later than a head may take, on /unmeasured without saying how long it is."""
    body = b""
    if scope["path"] == "/slow":
        await asyncio.sleep(HEAD_TIMEOUT_S / 2)
    if scope["path"] == "/slower":
        await asyncio.sleep(HEAD_TIMEOUT_S * 2)
    while scope["path"] != "/early":
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    names = b",".join(name for name, _ in scope["headers"])
    answer = b"%s|%s|%s" % (scope["raw_path"], body, names)
    headers = [] if scope["path"] == "/unmeasured" else [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@contextlib.asynccontextmanager
async def echoing(records: list[RequestRecord], app: Any = echo) -> AsyncIterator[tuple[str, int]]:
    """The address of `app`. `records` gets what the protocol tells of its refusals."""
    bounds = {"max_header_bytes": MAX_HEADER_BYTES, "head_timeout_s": HEAD_TIMEOUT_S}
    async with listening(app, records, **bounds, lifespan="off", timeout_keep_alive=KEEP_ALIVE_S) as address:
        yield address


async def exchange(address: tuple[str, int], *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Sends the pieces, then reads until the server closes or falls silent."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
        got = b""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    data = await reader.read(65536)
            except TimeoutError:
                return got + b"<open>"
            if not data:
                return got
            got += data
