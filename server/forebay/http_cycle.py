"""One request and its response on a connection of uvicorn's: what an app sends, as HTTP/1.1."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from forebay.observe.record import RequestRecord

BODILESS = frozenset({204, 304})


class Cycle(RequestResponseCycle):
    """uvicorn's, with heads written in one go, where it searches each header twice for what may not be in it.

    HTTP/1.0 knows no chunks (RFC 9112, 6.1): the end of the connection ends a body of no stated length. The connection
    is the protocol's to close, when it is told of the response's end.
    """

    _ends_with_connection = False

    async def receive(self) -> Any:
        message = await super().receive()
        if message["type"] == "http.request" and not message["more_body"]:
            self.flow.resume_reading()  # after a large last piece it was paused, and nobody would see the client leave
        return message

    def client_left(self) -> None:
        """Told by the connection, of the request that is being answered."""
        self.disconnected = True
        self.message_event.set()
        record: RequestRecord | None = self.scope["state"].get("record")
        if record is not None:  # else its task has not begun, and is told when it asks for the body
            record.patience.client_left()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._begin(message)
        elif not self.response_complete:
            self._go_on(message)
        else:
            raise RuntimeError("The response was complete already.")

    @property
    def is_open(self) -> bool:
        """Whether a piece of a body that goes on can be written at once."""
        return bool(
            self.chunked_encoding
            and not (self.flow.write_paused or self.disconnected or self.response_complete)
            and self.response_started
        )

    def write_piece(self, piece: bytes) -> None:
        """What `send` does with one, only while it is open, for those who cannot wait."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _begin(self, message: Any) -> None:
        """Raises RuntimeError for headers that would end early or begin others (response splitting)."""
        if message["type"] != "http.response.start":
            raise RuntimeError(f"Expected the start of a response, got {message['type']!r}.")
        self.response_started = True
        self.waiting_for_100_continue = False
        status = message["status"]
        headers = [*self.default_headers, *message.get("headers", ())]
        closes = False
        for name, value in headers:
            if name == b"content-length":
                self.expected_content_length = int(value)
                self.chunked_encoding = False
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                closes = True
        lines = [STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers]]
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and status not in BODILESS and self.scope["method"] != "HEAD":
            if self.scope["http_version"] == "1.0":
                self._ends_with_connection = True
            else:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) or b"\0" in head:
            raise RuntimeError("A header holds a line break or a NUL.")
        self.transport.write(head + b"\r\n")

    def _go_on(self, message: Any) -> None:
        """Raises RuntimeError for a body that is not as long as was said."""
        if message["type"] != "http.response.body":
            raise RuntimeError(f"Expected a response's body, got {message['type']!r}.")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
        elif self.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                framed += b"0\r\n\r\n"
            self.transport.write(framed)
        elif self._ends_with_connection:
            self.transport.write(body)
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0:
                raise RuntimeError("The body is longer than its Content-Length.")
            self.transport.write(body)
        if not more:
            if self.expected_content_length:
                raise RuntimeError("The body is shorter than its Content-Length.")
            self.response_complete = True
            self.message_event.set()
            self.on_response()
