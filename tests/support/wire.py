"""Requests over plain sockets, for what an HTTP client would not send or would hide."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Header names are lower case; of a repeated header the last counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def connect(port: int, *, receive_buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(TIMEOUT_S)
    sock.connect(("127.0.0.1", port))
    return sock


def head(method: str, target: str, *lines: str) -> bytes:
    """A request's head; every line is sent as it is, in Latin-1."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def post(path: str, body: Any, *lines: str) -> bytes:
    """A whole POST of JSON; `body` is serialised unless it is bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    framing = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {len(raw)}")
    return head("POST", path, *framing, *lines) + raw


def exchange(port: int, *pieces: bytes) -> Answer:
    """Sends, then reads one answer that has a length."""
    with connect(port) as sock:
        for piece in pieces:
            sock.sendall(piece)
        return read_answer(sock)


def read_answer(sock: socket.socket) -> Answer:
    with sock.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Answer(status, headers, stream.read(int(headers["content-length"])))


def read_until(sock: socket.socket, wanted: bytes, *, count: int = 1) -> bytes:
    """What came up to the `count`-th time that `wanted` was in it."""
    got, num_found, start = bytearray(), 0, 0
    while num_found < count:
        piece = sock.recv(65536)
        assert piece, f"the connection ended before {wanted!r} came: {bytes(got[-200:])!r}"
        got += piece
        while (at := got.find(wanted, start)) >= 0:
            num_found, start = num_found + 1, at + len(wanted)
        start = max(start, len(got) - len(wanted) + 1)
    return bytes(got)


def finish(sock: socket.socket) -> None:
    """The client closes in order: a FIN."""
    sock.close()


def reset(sock: socket.socket) -> None:
    """The client goes in the middle of things: a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def half_close(sock: socket.socket) -> None:
    """The client sends nothing any more; it might still read."""
    sock.shutdown(socket.SHUT_WR)


def eventually(probe: Callable[[], T | None], *, timeout_s: float = 5.0) -> T:
    """The first result of `probe` that is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
    return found
