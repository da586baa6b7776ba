"""Writes to clients' connections, gathered for a turn of the event loop.

Each is a call of the system, and may wake the client.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import structlog

MOST_GATHERED = 65_536
"""Bytes for a connection after which they are written at once: a task that never lets the loop turn must see when its
client takes no more."""

log = structlog.get_logger(__name__)


class Turn:
    """Connections of one event loop that have something to be written when its present turn ends."""

    def __init__(self) -> None:
        self._connections: list[GatheringTransport] = []
        self._context = contextvars.Context()
        """Of no request."""

    def add(self, connection: GatheringTransport) -> None:
        if not self._connections:
            asyncio.get_running_loop().call_soon(self._end, context=self._context)
        self._connections.append(connection)

    def _end(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            try:
                connection.flush()
            except Exception:  # the other connections' are still to be written
                log.exception("write_failed")
                connection.abort()


class GatheringTransport:
    """What a protocol needs of its transport. What is written in a turn leaves together, one connection after the
    other: a client of many is woken once, and an answer's head leaves with its body."""

    __slots__ = ("_num_bytes", "_pieces", "_transport", "_turn", "abort", "is_closing")

    def __init__(self, transport: asyncio.Transport, turn: Turn) -> None:
        self._transport = transport
        self._turn = turn
        self._pieces: list[bytes] = []
        self._num_bytes = 0
        self.abort = transport.abort
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._turn.add(self)
        self._pieces.append(data)
        self._num_bytes += len(data)
        if self._num_bytes > MOST_GATHERED:
            self.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def discard(self) -> None:
        """The connection is lost."""
        self._pieces = []

    def flush(self) -> None:
        pieces = self._pieces
        if pieces:
            self._pieces, self._num_bytes = [], 0
            self._transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Once what was written has left."""
        self.flush()
        self._transport.close()
