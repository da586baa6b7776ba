"""One HTTP/1.1 connection: a request out, the pieces of its answer in, with the moment of each."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools

from forebay.bench.answer import Answer


class Connection(asyncio.Protocol):
    """One request at a time. `usable` says whether another one may follow on it."""

    def __init__(self) -> None:
        self.usable = False
        self.was_used = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._answer: Answer | None = None
        self._ended: asyncio.Future[None] | None = None
        self._started = self._framed = False
        self._now_s = 0.0

    async def ask(self, message: bytes, answer: Answer) -> bool:
        """Until the answer has ended, however it did; what was wrong is in its outcome.

        False where a connection that had been idle ended without a byte of an answer, as it does where the server had
        closed it: the request may be asked again.
        """
        assert self._transport is not None
        assert self._ended is None
        self._answer, self._ended = answer, asyncio.get_running_loop().create_future()
        self._started = self._framed = False
        if self._transport.is_closing():
            return False
        self._transport.write(message)
        try:
            await self._ended
        except asyncio.CancelledError:  # the client leaves
            self.close()
            raise
        finally:
            self._answer = self._ended = None
        stale = self.was_used and not self._started and not self.usable
        self.was_used = True
        return not stale

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.usable = cast("asyncio.Transport", transport), True  # uvloop's has another base

    def data_received(self, data: bytes) -> None:
        self._now_s = time.perf_counter()
        self._started = True
        if self._answer is None:  # what nobody asked for
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if self._answer is not None:
                self._answer.fail("malformed", f"Not HTTP: {exc}")
            self.close()
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        answer = self._answer
        if answer is None:
            return
        if exc is None and self._started and answer.outcome.status and not self._framed:
            answer.end()  # a body that lasts until the connection ends
        else:
            answer.fail("reset", str(exc or "The connection was closed before the answer was complete."))
        self._end()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, {}
        if self._is_interim():
            return
        self._framed = b"content-length" in headers or b"transfer-encoding" in headers
        if self._answer is not None:
            self._answer.head(self._parser.get_status_code(), headers)

    def on_body(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer.feed(data, self._now_s)

    def on_message_complete(self) -> None:
        if self._is_interim():
            return
        if not self._parser.should_keep_alive():
            self.usable = False
            if self._transport is not None:
                self._transport.close()
        if self._answer is not None:
            self._answer.end()
        self._end()

    def _is_interim(self) -> bool:
        """100 Continue, 103 Early Hints: the answer itself follows (RFC 9110, 15.2)."""
        return bool(self._parser.get_status_code() < 200)

    def _end(self) -> None:
        self._answer = None  # what follows, the connection's end too, is none of it
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
