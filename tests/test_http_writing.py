"""What is written to clients leaves once a turn of the event loop, in order, and all of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import httpx
import pytest

from forebay.app import create_app
from forebay.generation import Generation
from forebay.http_writing import MOST_GATHERED, GatheringTransport, Turn
from forebay.settings import Settings
from forebay.types import Delta
from support.guards import becomes
from support.listening import listening

NUM_TOKENS = 200


class Wire:
    """A transport that notes what it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.told: list[bytes | str] = []
        self._error = error

    def write(self, data: bytes) -> None:
        if self._error is not None:
            raise self._error
        self.told.append(data)

    def write_eof(self) -> None:
        self.told.append("eof")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def is_closing(self) -> bool:
        return "close" in self.told


def gathering(wire: Wire, turn: Turn) -> GatheringTransport:
    return GatheringTransport(cast(asyncio.Transport, wire), turn)


async def test_pieces_of_a_turn_leave_together_and_in_order() -> None:
    """One write for each connection when the turn ends; and again in the next one."""
    turn, wires = Turn(), [Wire(), Wire()]
    connections = [gathering(wire, turn) for wire in wires]
    for num_turns in (1, 2):
        for piece in (b"a", b"b"):
            for connection in connections:
                connection.write(piece)
        assert [len(wire.told) for wire in wires] == [num_turns - 1] * 2
        await asyncio.sleep(0)
        assert [wire.told for wire in wires] == [[b"ab"] * num_turns] * 2


async def test_a_task_that_never_lets_the_loop_turn_gathers_no_more_than_a_bound() -> None:
    """What is beyond it is written at once, so that a client which takes no more is noticed."""
    wire = Wire()
    connection = gathering(wire, Turn())
    for _ in range(3):
        connection.write(b"x" * MOST_GATHERED)
    assert [len(piece) for piece in wire.told] == [2 * MOST_GATHERED]
    await asyncio.sleep(0)
    assert [len(piece) for piece in wire.told] == [2 * MOST_GATHERED, MOST_GATHERED]


@pytest.mark.parametrize("end", ["close", "eof"])
async def test_what_was_written_leaves_before_the_end(end: str) -> None:
    """An answer that closes its connection arrives."""
    wire = Wire()
    connection = gathering(wire, Turn())
    connection.write(b"answer")
    connection.close() if end == "close" else connection.write_eof()
    await asyncio.sleep(0)
    assert wire.told == [b"answer", end]


async def test_what_waits_for_a_connection_that_is_lost_is_dropped() -> None:
    """Nobody is there to read it, which is no failure to be logged."""
    wire = Wire(RuntimeError("the transport is closed"))
    connection = gathering(wire, Turn())
    connection.write(b"answer")
    connection.discard()
    await asyncio.sleep(0)
    assert wire.told == []


async def test_a_connection_that_cannot_be_written_holds_up_no_other() -> None:
    """It is broken off, and those behind it in the turn get theirs."""
    turn, broken, whole = Turn(), Wire(MemoryError()), Wire()
    for wire in (broken, whole):
        gathering(wire, turn).write(b"answer")
    await asyncio.sleep(0)
    assert broken.told == ["abort"]
    assert whole.told == [b"answer"]


async def test_a_streams_deltas_are_written_without_a_turn_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task reads the first delta, the last one, and those that had to wait for the ledger; the client gets all."""
    num_read = 0
    read = Generation.__anext__

    async def counted(self: Generation) -> Delta:
        nonlocal num_read
        delta = await read(self)
        num_read += 1
        return delta

    monkeypatch.setattr(Generation, "__anext__", counted)
    app = create_app(Settings(engine="scripted", data_dir=tmp_path))
    body = {
        "prompt": "Count.",
        "stream": True,
        "max_tokens": NUM_TOKENS,
        "ignore_eos": True,
        "metadata": {"forebay_burst": "1", "forebay_inter_token_ms": "2"},
    }
    async with listening(app, [], max_header_bytes=4096, head_timeout_s=5.0, lifespan="on") as (host, port):
        await becomes(lambda: app.services.host.state == "ready")
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            lines = (await client.post("/v1/completions", json=body)).text.splitlines()
    num_frames = sum(line.startswith("data: {") for line in lines)
    assert lines[-2:] == ["data: [DONE]", ""]
    assert num_read < NUM_TOKENS / 4
    assert num_frames > NUM_TOKENS / 2
