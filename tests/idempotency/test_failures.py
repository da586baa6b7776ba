"""What is not an answer is not kept: the key is free again, and the next request is one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.keyed import CHAT, GENERATE, Books, keyed, new_key, question, raw_post, request_id_of
from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, finish
from support.witness import Witness

MAX_BYTES = 5000
FAILS = {"metadata": {"forebay_fail": "raise@4", "forebay_inter_token_ms": "5"}}


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Answers one at a time, lets one wait, keeps little of an answer, and that not for long."""
    with journalled_server(
        tmp_path_factory.mktemp("narrow"),
        FOREBAY_MAX_NUM_SEQS="1",
        FOREBAY_MAX_QUEUED_REQUESTS="1",
        FOREBAY_REQUEST_TIMEOUT_S="20",
        FOREBAY_IDEMPOTENCY_MAX_BYTES=str(MAX_BYTES),
        FOREBAY_IDEMPOTENCY_GRACE_S="0.1",
        FOREBAY_IDEMPOTENCY_TTL_S="2",
    ) as running:
        yield running


@pytest.fixture
def narrow_books(narrow: ServerProcess) -> Iterator[Books]:
    with closing(Witness(narrow)) as reading:
        reading.wait_idle()
        yield Books(narrow, reading)


@pytest.fixture
async def narrow_client(narrow: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=narrow.url, timeout=30) as connected:
        yield connected


async def both(client: httpx.AsyncClient, key: str, body: dict[str, object]) -> list[httpx.Response]:
    """The answers to two requests at once."""
    return await asyncio.gather(*(client.post(CHAT, json=body, headers=keyed(key)) for _ in range(2)))


async def test_an_engine_that_fails(async_client: httpx.AsyncClient, books: Books) -> None:
    """Whoever waits gets the error; whoever comes later asks the engine anew. Nobody is charged."""
    key, body = new_key(), question(CHAT) | FAILS
    first, joined = await both(async_client, key, body)
    assert first.status_code == joined.status_code == 500
    assert first.json()["error"] == joined.json()["error"]
    again = await async_client.post(CHAT, json=body, headers=keyed(key))
    assert again.status_code == 500
    assert "idempotent-replayed" not in again.headers
    assert books.outcomes() == ["failed", "failed"]


async def test_an_engine_that_fails_in_a_stream(async_client: httpx.AsyncClient, books: Books) -> None:
    """All who read have the same frames and the same error; the stream is not kept."""
    key, body = new_key(), question(CHAT, stream=True) | FAILS
    first, joined = await both(async_client, key, body)
    assert first.content == joined.content
    assert b'data: {"error"' in first.content
    assert first.content.endswith(b"data: [DONE]\n\n")
    again = await async_client.post(CHAT, json=body, headers=keyed(key))
    assert request_id_of(again.content) != request_id_of(first.content)
    assert books.outcomes() == ["failed", "failed"]


@pytest.mark.parametrize("change", [{"max_tokens": 10**6}, {"model": "gamma"}, {"unheard_of": 1}])
def test_refusals_are_not_kept(client: httpx.Client, change: dict[str, object]) -> None:
    """A request that was refused has not used its key: the corrected one may have it."""
    key = new_key()
    for _ in range(2):
        refused = client.post(CHAT, json=question(CHAT) | change, headers=keyed(key))
        assert refused.status_code in (400, 404)
        assert "idempotent-replayed" not in refused.headers
    assert client.post(CHAT, json=question(CHAT), headers=keyed(key)).status_code == 200


def test_a_full_queue(narrow: ServerProcess, narrow_books: Books) -> None:
    """503, and with the same key an answer when there is room."""
    key, busy = new_key(), question(CHAT, num_tokens=4000, ms=5)
    with connect(narrow.port) as running, connect(narrow.port) as waiting, closing(Witness(narrow)) as witness:
        for sock in (running, waiting):
            sock.sendall(raw_post(new_key(), busy))
        eventually(lambda: witness.load().waiting == 1)
        refused = httpx.post(narrow.url + CHAT, json=question(CHAT), headers=keyed(key))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        finish(running)
        finish(waiting)
        witness.wait_idle()
    answer = httpx.post(narrow.url + CHAT, json=question(CHAT), headers=keyed(key))
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


async def test_an_answer_too_long_to_keep(narrow_client: httpx.AsyncClient, narrow_books: Books) -> None:
    """Those who read along have all of it. Who comes too late is told, and generates nothing: it was billed once."""
    key, body = new_key(), question(CHAT, stream=True, num_tokens=200, ms=3)

    asked = {"method": "POST", "url": CHAT, "json": body, "headers": keyed(key)}
    async with narrow_client.stream(**asked) as answer, narrow_client.stream(**asked) as other:
        joined = asyncio.create_task(other.aread())
        content = b""
        async for piece in answer.aiter_raw():
            content += piece
            if len(content) > 2 * MAX_BYTES and b"[DONE]" not in content:
                late = await narrow_client.post(CHAT, json=body, headers=keyed(key))
                assert late.status_code == 409
        assert content.endswith(b"data: [DONE]\n\n")
        assert await joined == content
    after = await narrow_client.post(CHAT, json=body, headers=keyed(key))
    assert (after.status_code, after.json()["error"]["code"]) == (409, "idempotency_answer_not_stored")
    assert after.headers["x-should-retry"] == "false"
    assert narrow_books.settlement()["completion_tokens"] == 200


async def test_a_whole_answer_too_long_to_keep(narrow_client: httpx.AsyncClient, narrow_books: Books) -> None:
    """The same of an answer in one piece."""
    key, body = new_key(), question(CHAT, num_tokens=100, logprobs=True, top_logprobs=5)
    first, joined = await both(narrow_client, key, body)
    assert len(first.content) > MAX_BYTES
    assert first.content == joined.content
    assert (await narrow_client.post(CHAT, json=body, headers=keyed(key))).status_code == 409
    assert narrow_books.settlement()["completion_tokens"] == 100


def test_a_long_answer_that_nobody_reads_ends_at_once(narrow: ServerProcess, narrow_books: Books) -> None:
    """Nobody could come back for it."""
    with connect(narrow.port) as sock, closing(Witness(narrow)) as witness:
        sock.sendall(raw_post(new_key(), question(CHAT, stream=True, num_tokens=4000, ms=2)))
        (request_id,) = eventually(narrow_books.started)
        witness.wait_for(request_id, "tokens", count=40)
        finish(sock)
        witness.wait_for(request_id, "abort")
    assert narrow_books.settlement()["outcome"] == "client_gone"


@pytest.mark.parametrize("reading", ["first", "joined"])
def test_a_stream_that_takes_too_long(tmp_path: Path, reading: str) -> None:
    """Whoever reads along is told so, as without a key: one error frame, then `[DONE]`."""
    key, body = keyed(new_key()), question(CHAT, stream=True, num_tokens=4000, ms=20)
    with (
        journalled_server(tmp_path, FOREBAY_REQUEST_TIMEOUT_S="0.6") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
        client.stream("POST", CHAT, json=body, headers=key) as first,
    ):
        pieces = first.iter_raw()
        next(pieces)
        if reading == "joined":
            content = client.post(CHAT, json=body, headers=key).content
        else:
            content = b"".join(pieces)
        assert content.endswith(b'"code":"timeout"}}\n\ndata: [DONE]\n\n')
        assert content.count(b'"error"') == 1


def test_answers_expire(narrow: ServerProcess, narrow_books: Books) -> None:
    """After the time that is set the key is new again."""
    body, headers = {"prompt": "go", "max_tokens": 5}, keyed(new_key())

    def ask() -> httpx.Response:
        return httpx.post(narrow.url + GENERATE, json=body, headers=headers)

    ask()
    assert ask().headers["idempotent-replayed"] == "true"
    eventually(lambda: "idempotent-replayed" not in ask().headers)
    assert narrow_books.outcomes() == ["complete", "complete"]
