"""An answer while it is written: kept from its first byte, read by any number of readers, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from forebay.errors import AnswerNotStored, ApiError

MAX_READ_BYTES = 64 * 1024
FRAME_END = b"\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer begins with; names of headers are lower case."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]


class Recording:
    """One writer: `begin`, `write`, then `end` or `fail`. Lives on one event loop.

    Up to `max_bytes` are kept, and nobody waits for anybody. An answer that grows beyond loses its beginning: it cannot
    be joined or stored any more, its writer waits for the foremost reader, and who is too far behind is cut off.
    """

    def __init__(self, max_bytes: int, on_alone: Callable[[], None]) -> None:
        """`on_alone`: the last reader has left."""
        self._max_bytes = max_bytes
        self._on_alone = on_alone
        self._head: Head | None = None
        self._buffer = bytearray()
        self._start = 0
        self._shown: int | None = None
        self._comment: tuple[int, bytes] = (0, b"")
        self._readers: set[Reader] = set()
        self._room: asyncio.Future[None] | None = None
        self._error: ApiError | None = None
        self._ended = False

    @property
    def has_readers(self) -> bool:
        return bool(self._readers)

    @property
    def can_be_joined(self) -> bool:
        """Nothing of it was given up."""
        return self._start == 0

    def content(self) -> tuple[Head, bytes | None]:
        """All that was written; None for more than `max_bytes`. It has begun."""
        assert self._head is not None
        is_whole = self._start == 0 and len(self._buffer) <= self._max_bytes
        return self._head, bytes(self._buffer) if is_whole else None

    def begin(self, head: Head) -> None:
        self._head = head
        self._wake()

    async def write(self, piece: bytes) -> None:
        """Adds whole frames, or all of a body; never nothing."""
        excess = len(self._buffer) + len(piece) - self._max_bytes
        if excess > 0 and self._buffer and self._shown is None:
            await self._give_up(min(excess, len(self._buffer)))
        self._buffer += piece
        self._wake()

    async def _give_up(self, num_bytes: int) -> None:
        first = self._start + num_bytes
        while self._readers and max(reader.position for reader in self._readers) < first:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        del self._buffer[:num_bytes]
        self._start = first

    def remark(self, comment: bytes) -> None:
        """Goes to readers that have read everything; it is no part of the answer."""
        self._comment = (self._comment[0] + 1, comment)
        self._wake()

    def withhold(self) -> None:
        """Shows nothing of what follows, a head included, before `end`; nor does that wait for room."""
        self._shown = self._start + len(self._buffer)

    def end(self) -> None:
        self._shown, self._ended = None, True
        self._wake()

    def fail(self, error: ApiError) -> None:
        """Readers get the error after what was shown; without effect once it has ended or failed."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def join(self) -> Reader:
        """A reader from the first byte. Raises `AnswerNotStored`. Its `close` is owed."""
        if self._start:
            raise AnswerNotStored("This key's answer is too long to be kept, so it cannot be joined any more.")
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    # For readers

    @property
    def head(self) -> Head | None:
        """None until it is shown. Raises the error of a recording that failed before."""
        if self._head is not None and self._shown != 0:
            return self._head
        if self._error is not None:
            raise self._error
        return None

    def comment_after(self, number: int) -> tuple[int, bytes] | None:
        """The newest comment with its number, if it is newer."""
        return self._comment if self._comment[0] > number else None

    def read(self, position: int) -> bytes | None:
        """What is shown from there on, up to the end of a frame; b"" where there is nothing yet, None at the end.

        Raises the error of a recording that failed, `AnswerNotStored` where the position is given up already.
        """
        if position < self._start:
            raise AnswerNotStored("The answer is too long to be kept, and was read too slowly.")
        begin = position - self._start
        end = len(self._buffer) if self._shown is None else self._shown - self._start
        if begin < end:
            piece = bytes(self._buffer[begin : min(end, begin + MAX_READ_BYTES)])
            if len(piece) < end - begin and (cut := piece.rfind(FRAME_END)) >= 0:
                return piece[: cut + len(FRAME_END)]
            return piece
        if self._error is not None:
            raise self._error
        return None if self._ended else b""

    def moved(self) -> None:
        """A reader is further, or gone."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def leave(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            self.moved()
            if not self._readers:
                self._on_alone()


class Reader:
    """One reader of a recording: `head`, then iterate, then `close`."""

    __slots__ = ("_comment", "_recording", "_waiter", "position")

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiter: asyncio.Future[None] | None = None
        self._comment = 0
        self.position = 0

    async def head(self) -> Head:
        """Waits until it is shown. Raises the error of a recording that fails before."""
        while (head := self._recording.head) is None:
            await self._wait()
        return head

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        """What came since, frames and comments. Raises what `Recording.read` raises."""
        while True:
            piece = self._recording.read(self.position)
            if piece is None:
                break
            if piece:
                self.position += len(piece)
                self._recording.moved()
                return piece
            if (comment := self._recording.comment_after(self._comment)) is not None:
                self._comment = comment[0]
                return comment[1]
            await self._wait()
        raise StopAsyncIteration

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Idempotent."""
        self._recording.leave(self)
