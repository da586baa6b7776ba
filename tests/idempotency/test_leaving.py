"""With a key a generation outlives its client for a while, who may come back for it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.administrator import Made
from support.keyed import CHAT, Books, keyed, new_key, question, raw_post, request_id_of
from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, finish, post, read_until, reset
from support.witness import Witness

GRACE_S = 0.3
LONG = question(CHAT, stream=True, num_tokens=4000, ms=5)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Waits for nobody for long."""
    with journalled_server(
        tmp_path_factory.mktemp("hasty"),
        FOREBAY_IDEMPOTENCY_GRACE_S=str(GRACE_S),
        FOREBAY_SSE_PING_S="0.1",
    ) as running:
        yield running


@pytest.fixture
def hasty_witness(hasty: ServerProcess) -> Iterator[Witness]:
    with closing(Witness(hasty)) as reading:
        yield reading


@pytest.mark.parametrize("way", [finish, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_who_comes_back_finds_all_of_it(
    server: ServerProcess, client: httpx.Client, mine: Made, books: Books, stream: bool, way: Callable[..., None]
) -> None:
    """One generation: the second connection gets it from the first byte on, whatever the first one had read."""
    key, body = new_key(), question(CHAT, stream=stream, num_tokens=60, ms=5)
    with connect(server.port) as sock:
        sock.sendall(raw_post(key, body, CHAT, authorization=mine.headers["authorization"]))
        eventually(books.started)
        if stream:
            read_until(sock, b'"content":', count=5)
        way(sock)
    answer = client.post(CHAT, json=body, headers=keyed(key))
    assert answer.headers["idempotent-replayed"] == "true"
    assert books.settlement()["outcome"] == "complete"
    assert books.settlement()["completion_tokens"] == 60
    assert not stream or answer.content.endswith(b"data: [DONE]\n\n")
    assert client.post(CHAT, json=body, headers=keyed(key)).content == answer.content


async def test_joining_midway(async_client: httpx.AsyncClient, books: Books) -> None:
    """A stream is given from its beginning, then as it comes; both clients have the same bytes, and it is in flight
    once for each of them."""
    key, body = keyed(new_key()), question(CHAT, stream=True, num_tokens=60, ms=5)
    async with async_client.stream("POST", CHAT, json=body, headers=key) as first:
        pieces = first.aiter_raw()
        seen = [await anext(pieces) for _ in range(5)]
        joining = asyncio.create_task(async_client.post(CHAT, json=body, headers=key))
        seen += [piece async for piece in pieces]
    joined = await joining
    assert joined.content == b"".join(seen)
    assert books.settlement()["completion_tokens"] == 60


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_nobody_comes_back(hasty: ServerProcess, hasty_witness: Witness, stream: bool) -> None:
    """After the grace it is aborted and billed to who left, as without a key; then the key is free."""
    books, key = Books(hasty, hasty_witness), new_key()
    body = question(CHAT, stream=stream, num_tokens=4000, ms=5)
    with connect(hasty.port) as sock:
        sock.sendall(raw_post(key, body))
        (request_id,) = eventually(books.started)
        hasty_witness.wait_for(request_id, "tokens", count=3)
        left = time.monotonic()
        finish(sock)
    hasty_witness.wait_for(request_id, "abort")
    assert time.monotonic() - left >= GRACE_S
    row = books.settlement()
    assert (row["outcome"], row["completion_tokens"]) == ("client_gone", hasty_witness.num_generated(request_id))
    assert hasty_witness.line(request_id)["outcome"] == "client_gone"
    hasty_witness.wait_idle()
    with connect(hasty.port) as sock:
        sock.sendall(raw_post(key, body))
        eventually(lambda: len(books.started()) == 2)


def test_coming_back_begins_the_grace_anew(hasty: ServerProcess, hasty_witness: Witness) -> None:
    """As long as anybody reads it goes on, and it counts as one request in flight, read or not."""
    hasty_witness.wait_idle()
    books, key = Books(hasty, hasty_witness), new_key()
    for number in range(3):
        with connect(hasty.port) as sock:
            sock.sendall(raw_post(key, LONG))
            began = time.monotonic()
            read_until(sock, b'"content":', count=40 * (number + 1))
            eventually(lambda: hasty_witness.load().in_flight == 1)
            finish(sock)
        eventually(lambda: hasty_witness.load().in_flight == 1)
    assert time.monotonic() - began < GRACE_S * 10
    (request_id,) = books.started()
    hasty_witness.wait_for(request_id, "abort")
    hasty_witness.wait_idle()


def test_a_stop_waits_for_what_nobody_reads(tmp_path: Path) -> None:
    """SIGTERM while the clients are away: what is done within the limit is kept, and the next process gives it; what is
    not has failed, and its key is free there."""
    short, long = new_key(), new_key()
    body = question(CHAT, stream=True, num_tokens=100, ms=5)
    with journalled_server(tmp_path, FOREBAY_DRAIN_TIMEOUT_S="1") as server, closing(Witness(server)) as witness:
        books = Books(server, witness)
        with connect(server.port) as one, connect(server.port) as other:
            one.sendall(raw_post(short, body))
            other.sendall(raw_post(long, LONG))
            begun = read_until(one, b'"content":', count=3)
            read_until(other, b'"content":', count=3)
        server.signal(signal.SIGTERM)
        assert server.wait(10) == 0
        assert books.outcomes() == ["complete", "failed"]
        server.start()
        answer = httpx.post(server.url + CHAT, json=body, headers=keyed(short))
        assert answer.headers["idempotent-replayed"] == "true"
        assert request_id_of(answer.content).encode() in begun
        assert answer.content.endswith(b"data: [DONE]\n\n")
        with connect(server.port) as sock:
            sock.sendall(raw_post(long, LONG))
            eventually(lambda: len(books.started()) == 3)
            finish(sock)
        server.signal(signal.SIGKILL)


def test_a_reader_that_is_slow_slows_nobody(
    server: ServerProcess, client: httpx.Client, mine: Made, witness: Witness, books: Books
) -> None:
    """Who reads nothing is waited for by nobody; when he reads, everything is there."""
    key = new_key()
    body = question(CHAT, stream=True, num_tokens=400, n=8, logprobs=True, top_logprobs=20)
    with connect(server.port, receive_buffer=4096) as slow:
        slow.sendall(raw_post(key, body, CHAT, authorization=mine.headers["authorization"]))
        eventually(books.started)
        answer = client.post(CHAT, json=body, headers=keyed(key))
        assert books.settlement()["completion_tokens"] == 3_200
        assert witness.load().in_flight == 1
        text = read_until(slow, b"data: [DONE]\n\n")
    assert len(text) > len(answer.content) > 4 << 20
    assert text.count(b"data: {") == answer.content.count(b"data: {")


def test_comments_are_no_part_of_an_answer(hasty: ServerProcess) -> None:
    """They keep the connection of a client that waits open; a replay has nothing to wait for."""
    body = question(CHAT, stream=True, metadata={"forebay_first_token_ms": "350"})
    first, again = (httpx.post(hasty.url + CHAT, json=body, headers=keyed("comments")) for _ in range(2))
    assert first.content.count(b": keep-alive\n\n") >= 2
    assert again.content == first.content.replace(b": keep-alive\n\n", b"")


def test_without_a_key_nobody_is_waited_for(hasty: ServerProcess, hasty_witness: Witness) -> None:
    """The engine is told at once, as ever."""
    books = Books(hasty, hasty_witness)
    with connect(hasty.port) as sock:
        sock.sendall(post(CHAT, LONG))
        (request_id,) = eventually(books.started)
        hasty_witness.wait_for(request_id, "tokens", count=3)
        left = time.monotonic()
        finish(sock)
    hasty_witness.wait_for(request_id, "abort")
    assert time.monotonic() - left < GRACE_S
