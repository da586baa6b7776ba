"""`Recording` by itself: who sees what when, and what becomes of answers that are too long to keep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from forebay.errors import AnswerNotStored, ApiError, EngineUnavailable
from forebay.idempotency.recording import Head, Reader, Recording

HEAD = Head(200, ((b"content-type", b"text/event-stream"),))
FRAME = b"data: 0123456789\n\n"


def make(max_bytes: int = 1 << 20) -> tuple[Recording, list[str]]:
    """The list grows when the last reader leaves."""
    left: list[str] = []
    recording = Recording(max_bytes, lambda: left.append("alone"))
    recording.begin(HEAD)
    return recording, left


async def read_all(reader: Reader) -> bytes:
    return b"".join([piece async for piece in reader])


async def settle() -> None:
    """Lets every task run as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_every_reader_gets_every_byte() -> None:
    """Those that were there first, came in the middle, or after the end."""
    recording, _ = make()
    first = asyncio.create_task(read_all(recording.join()))
    await recording.write(FRAME)
    await settle()
    second = asyncio.create_task(read_all(recording.join()))
    await recording.write(FRAME)
    recording.end()
    third = read_all(recording.join())
    assert await first == await second == await third == FRAME * 2
    assert recording.content() == (HEAD, FRAME * 2)


async def test_a_withheld_end_is_not_seen() -> None:
    """Not before `end`; a head that comes after `withhold` is withheld as well."""
    recording, _ = make()
    await recording.write(FRAME)
    recording.withhold()
    await recording.write(b"data: [DONE]\n\n")
    reader = recording.join()
    assert await anext(reader) == FRAME
    rest = asyncio.create_task(read_all(reader))
    await settle()
    assert not rest.done()
    recording.end()
    assert await rest == b"data: [DONE]\n\n"

    whole = Recording(1 << 20, lambda: None)
    whole.withhold()
    whole.begin(HEAD)
    await whole.write(b"{}")
    head = asyncio.create_task(whole.join().head())
    await settle()
    assert not head.done()
    whole.end()
    assert await head == HEAD


async def test_comments_go_to_who_waits() -> None:
    """They keep a connection open, and are no part of what is kept."""
    recording, _ = make()
    waiting, late = recording.join(), recording.join()
    await recording.write(FRAME)
    assert await anext(waiting) == FRAME
    recording.remark(b": keep-alive\n\n")
    assert await anext(waiting) == b": keep-alive\n\n"
    recording.end()
    assert await read_all(late) == FRAME
    assert recording.content()[1] == FRAME


@pytest.mark.parametrize("reads", [Reader.head, Reader.__anext__], ids=["head", "body"])
async def test_the_first_failure_reaches_all(reads: Callable[[Reader], object]) -> None:
    """Those who wait for the head as those who read on."""
    recording = Recording(1 << 20, lambda: None)
    if reads is Reader.__anext__:
        recording.begin(HEAD)
    waiting = [asyncio.ensure_future(reads(recording.join())) for _ in range(2)]
    await settle()
    recording.fail(EngineUnavailable("gone"))
    recording.fail(ApiError("later"))
    for one in waiting:
        with pytest.raises(EngineUnavailable):
            await one


async def test_a_reader_that_closes_leaves_the_others() -> None:
    """The last one to leave is told of."""
    recording, left = make()
    stays, leaves = recording.join(), recording.join()
    leaves.close()
    assert left == []
    stays.close()
    stays.close()
    assert left == ["alone"]


async def test_what_is_kept_in_memory_is_bounded() -> None:
    """Beyond the limit the writer waits for the foremost reader, and for nobody else; who is too far behind is cut off
    between two frames, and nobody can join."""
    recording, _ = make(max_bytes=len(FRAME) * 2)
    foremost, slow = recording.join(), recording.join()
    assert recording.can_be_joined

    async def write() -> None:
        for _ in range(5):
            await recording.write(FRAME)
        recording.end()

    writing = asyncio.create_task(write())
    await settle()
    assert not writing.done()
    assert await anext(foremost) == FRAME * 2
    await settle()
    assert not writing.done()
    assert await read_all(foremost) == FRAME * 3
    await writing
    with pytest.raises(AnswerNotStored):
        await read_all(slow)
    with pytest.raises(AnswerNotStored):
        recording.join()
    assert recording.content() == (HEAD, None)


async def test_long_answers_are_read_in_pieces_of_whole_frames() -> None:
    """So that what follows a piece, a comment or an error, begins a line of its own."""
    recording, _ = make()
    await recording.write(FRAME * 10_000)
    recording.end()
    pieces = [piece async for piece in recording.join()]
    assert b"".join(pieces) == FRAME * 10_000
    assert max(map(len, pieces)) <= 64 * 1024
    assert all(piece.endswith(b"\n\n") for piece in pieces)
