"""uvicorn's HTTP/1.1 protocol, bounded in a request's head and in requests sent ahead; no upgrade is taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sized
from typing import Any, cast
from urllib.parse import unquote
from uuid import uuid4

import httptools
import orjson
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from forebay.errors import ApiError, HeadersTooLarge, InvalidRequest, RequestHeadTimeout, error_body
from forebay.http_cycle import Cycle
from forebay.http_writing import GatheringTransport, Turn
from forebay.observe.record import RequestRecord

HEAD_TIMEOUT_S = 20.0
LINGER_S = 1.0
READ_AHEAD = 1
"""Requests that wait on a connection behind the one answered: a client that is not read is not seen to leave."""
SLICE_BYTES = 4096
"""Parsed at a time: a packet may hold thousands of heads, each of them some kilobytes here."""
UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")
UNKNOWN_METHOD = "unknown"

Observe = Callable[[RequestRecord], None]


def protocol_factory(
    max_header_bytes: int, observe: Observe, head_timeout_s: float = HEAD_TIMEOUT_S
) -> Callable[..., BoundedProtocol]:
    """Makes protocols for uvicorn. `observe` is told of what is refused here, which no app sees.

    Heads come to the app when they are complete, so the middleware cannot bound what the parser collects before.

    It refuses by name what is a little too large; four times the limit, request line included, is cut off here.
    """
    turn = Turn()

    def build(*args: Any, **kwargs: Any) -> BoundedProtocol:
        protocol = BoundedProtocol(*args, **kwargs)
        protocol.max_head_bytes = 4 * max_header_bytes
        protocol.observe = observe
        protocol.head_timeout_s = head_timeout_s
        protocol.turn = turn
        return protocol

    return build


class ReadAhead(FlowControl):
    """Reads on only while no more than `READ_AHEAD` requests wait."""

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if len(self._pipeline) <= READ_AHEAD:
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """Cuts off heads that are too large or too slow (slowloris), with our error body.

    Offers to upgrade are declined by going on in HTTP/1.1 (RFC 9110, 7.8). httptools skips the body of such a request;
    Java's HttpClient offers h2c with every first POST. The head is parsed again without the offer.

    A connection always has a timer or a request that is being answered: the head's from its first byte, uvicorn's
    keep-alive from an answer to the next head's first byte.
    """

    max_head_bytes = 0
    head_timeout_s = HEAD_TIMEOUT_S
    observe: Observe
    turn: Turn
    _head_bytes = 0
    """At least: of a packet in which something else ended only the rest is head, and counts as one byte."""
    _head_began = 0.0
    _framing_bytes = 0
    """Received since the last of a body: after the head these are trailers and chunk extensions."""
    _in_head = True
    _ended_head = False
    _unparsed = b""
    """Only while more than `READ_AHEAD` requests wait, so that nothing is read."""
    _is_deaf = False
    """What comes is dropped until the connection ends."""
    _head_timer: asyncio.TimerHandle | None = None
    _answering: Cycle | None = None
    """`cycle` is the newest request's, which may be pipelined."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = ReadAhead(transport, self.pipeline)
        self._writing = GatheringTransport(transport, self.turn)
        self.transport = cast(asyncio.Transport, self._writing)
        self._head_began = time.perf_counter()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def eof_received(self) -> None:
        """The transport closes after it, which drops what it does not have yet."""
        self._writing.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writing.discard()
        self._end_head()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.client_left()

    def data_received(self, data: bytes) -> None:
        for begin in range(0, len(data), SLICE_BYTES):
            if len(self.pipeline) > READ_AHEAD:
                self._unparsed = data[begin:]
                return
            self._parse(data[begin : begin + SLICE_BYTES])

    def _parse(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._ended_head = not self._in_head
        self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(InvalidRequest("The request is not valid HTTP/1.1."))
        if self._in_head:
            self._head_bytes += 1 if self._ended_head else len(data)
            if self._head_bytes > self.max_head_bytes:
                self._refuse(HeadersTooLarge("The request's head is too large."))
            elif self._head_timer is None and not self._is_deaf:
                self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)
        elif self._framing_bytes > self.max_head_bytes:
            self.transport.close()  # no answer: the request may have had one

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._head_bytes = 0
        self._head_began = time.perf_counter()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """As uvicorn's, but for the cycle's class and what is never asked of it here: upgrades, its own limit."""
        if self.parser.should_upgrade():
            return
        self._end_head()
        # The answer to the request before, which armed it, may have ended within this head.
        self._unset_keepalive_if_required()
        scope, version = self.scope, self.parser.get_http_version()
        url = httptools.parse_url(self.url)
        raw_path = url.path or b"/"
        path = raw_path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = raw_path
        scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue and version != "1.0",
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # pipelined: it waits for the one before
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) > READ_AHEAD:
                self.flow.pause_reading()

    def on_response_complete(self) -> None:
        """Ends the connection where the answer said so, else goes on with what was received."""
        if self._answering is not None and not self._answering.keep_alive:
            if self._answering.more_body:
                self._linger()
            else:
                self.transport.close()
        super().on_response_complete()
        if self._unparsed and not self.transport.is_closing():
            data, self._unparsed = self._unparsed, b""
            self.data_received(data)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers come here too, and change nothing (RFC 9110, 6.5.1): uvicorn would count them among the headers."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _end_head(self) -> None:
        self._in_head = False
        self._ended_head = True
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _decline_upgrade(self, rest: bytes) -> None:
        method = self.parser.get_method()
        if method == b"CONNECT":
            self._refuse(InvalidRequest("This is no proxy."), "CONNECT")
            return
        closing = any(name == b"connection" and b"close" in value.lower() for name, value in self.headers)
        head = [b"%s %s HTTP/1.1\r\n" % (method, self.url)]
        head += [b"%s: %s\r\n" % pair for pair in self.headers if pair[0] not in UPGRADE_HEADERS]
        head += [b"connection: close\r\n"] if closing else []
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._parse(b"".join(head) + b"\r\n" + rest)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._answering is not None and not self._answering.response_complete:
            # Closing would cut the answer before it, whose end does not depend on this client's next request.
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)
        elif self._head_bytes:
            self._refuse(RequestHeadTimeout(f"The request's head took longer than {self.head_timeout_s:.0f} s."))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError, method: str = UNKNOWN_METHOD) -> None:
        """An answer that no app sees, and the end of the connection. The parser names a method before it knows one."""
        self._end_head()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # An earlier request on this connection is being answered: anything written now would land inside it.
            self.transport.close()
            return
        record = RequestRecord(uuid4().hex, method, status=error.status, outcome="refused", error_code=error.code)
        body = orjson.dumps(error_body(error))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nx-request-id: %s\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[error.status] + head % (len(body), record.request_id.encode()) + body)
        self._linger()
        record.started, record.ended = self._head_began, time.perf_counter()
        self.observe(record)

    def _linger(self) -> None:
        """Closing on unread data resets the connection, and the client may lose the answer: data is dropped first."""
        self._is_deaf = True
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)
