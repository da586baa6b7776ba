"""What a connection bears: requests sent ahead, bodies nobody reads, HTTP/1.0, offers to upgrade with more behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from forebay.http_cycle import Cycle
from support.http1 import HEAD_TIMEOUT_S, echo, echoing, exchange
from support.server import ServerProcess

LARGE = 3_000_000


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    async with echoing([]) as address:
        yield address


async def test_requests_sent_ahead_wait_with_the_client() -> None:
    """Thousands of heads in a few packets: each is answered, and few of them are in memory at any time."""
    num, seen, most = 6000, 0, 0

    async def counting(
        scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        nonlocal seen, most
        seen += 1
        if seen % 100 == 0:
            most = max(most, sum(type(each) is Cycle for each in gc.get_objects()))
        await echo(scope, receive, send)

    request = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
    async with echoing([], counting) as address:
        reader, writer = await asyncio.open_connection(*address)
        with contextlib.closing(writer):
            writer.write(request * num)
            got = 0
            while got < num:
                async with asyncio.timeout(20):
                    await reader.readuntil(b"HTTP/1.1 200 OK")
                got += 1
    assert seen == num
    assert most < 400


async def test_bodies_sent_ahead_arrive_whole(address: tuple[str, int]) -> None:
    """However they lie in packets: in front of, across and behind what is read of them at a time."""
    lengths = [1, 5000, 9, 70_000] * 8
    posts = [b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (n, b"b" * n) for n in lengths]
    end = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    answer = await exchange(address, b"".join(posts) + end)
    assert [len(part.split(b"|")[0]) for part in answer.split(b"/a|")[1:]] == [*lengths, 2]


@pytest.mark.parametrize("closing", [True, False])
async def test_an_answer_before_a_large_body_is_not_lost(address: tuple[str, int], closing: bool) -> None:
    """To a client that sends all of it before it reads: closing on what it still sends would reset the connection."""

    def ask() -> bytes:
        connection = http.client.HTTPConnection(*address, timeout=10)
        with contextlib.closing(connection):
            headers = {"Connection": "close"} if closing else {}
            connection.request("POST", "/early", b"b" * LARGE, headers)
            return connection.getresponse().read()

    for _ in range(3):
        assert (await asyncio.to_thread(ask)).startswith(b"/early|")


async def test_http_1_0_gets_no_chunks(address: tuple[str, int]) -> None:
    """The end of the connection ends the body; nor is it told to go on with one."""
    head = b"POST /unmeasured HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    answer = await exchange(address, head, b"hi", pause_s=0.05)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert start.startswith(b"HTTP/1.1 200 OK")
    assert b"transfer-encoding" not in start
    assert body == b"/unmeasured|hi|expect,content-length"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_that_ends_its_connection_says_so_once(server: ServerProcess, version: str) -> None:
    """And a client of HTTP/1.0 reads frames, not the sizes of chunks."""
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": "go"}], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((server.host, server.port), timeout=10) as client:
        client.sendall(head.encode() + body)
        got = b"".join(iter(lambda: client.recv(65536), b""))
    start, _, stream = got.partition(b"\r\n\r\n")
    assert [line for line in start.lower().split(b"\r\n") if line.startswith(b"connection:")] == [b"connection: close"]
    assert (b"transfer-encoding: chunked" in start) == (version == "1.1")
    assert stream.startswith(b"data: ") == (version == "1.0")
    assert b"data: [DONE]\n\n" in stream


async def test_bytes_after_the_last_request_cut_no_answer(address: tuple[str, int]) -> None:
    """Also after an offer to upgrade that was declined."""
    head = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert b"/slow||" in await exchange(address, head, b"\r\nG", pause_s=0.05)


async def test_a_head_that_comes_slowly_cuts_no_answer_before_it(address: tuple[str, int]) -> None:
    """A stray byte behind a request is not the end of a long answer; what is still no head afterwards is told so."""
    answer = await exchange(address, b"GET /slower HTTP/1.1\r\nHost: x\r\n\r\n", b"G", pause_s=HEAD_TIMEOUT_S / 10)
    assert b"/slower||" in answer
    assert b"HTTP/1.1 408 " in answer


async def test_a_url_without_a_path_asks_for_the_root(address: tuple[str, int]) -> None:
    """In absolute form (RFC 9112, 3.2.2)."""
    assert b"\r\n\r\n/||" in await exchange(address, b"GET http://x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
