"""Bounds on a request's head, and upgrades that are declined, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from forebay.observe.record import RequestRecord
from support.http1 import HEAD_TIMEOUT_S, MAX_HEADER_BYTES, echoing, exchange

ONE = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def records() -> list[RequestRecord]:
    """What the protocol told of its refusals."""
    return []


@pytest.fixture
async def address(records: list[RequestRecord]) -> AsyncIterator[tuple[str, int]]:
    async with echoing(records) as address:
        yield address


def last(request: bytes) -> bytes:
    """The same request, after which the connection is to be closed."""
    if b"Connection: " in request:
        return request.replace(b"Connection: ", b"Connection: close, ")
    return request.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")


def error_of(answer: bytes) -> dict[str, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/json" in head
    return dict(json.loads(body)["error"])


async def test_a_head_that_never_ends_is_cut_off(address: tuple[str, int]) -> None:
    """A client that sends headers without end gets a 431 and is disconnected: its head is not collected for ever."""
    endless = b"x-filler: " + b"a" * 5000 + b"\r\n"
    answer = await exchange(address, b"GET / HTTP/1.1\r\n", *[endless] * 8)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert error_of(answer)["code"] == "headers_too_large"


async def test_a_header_value_that_never_ends_is_cut_off(address: tuple[str, int]) -> None:
    """Also inside one header."""
    answer = await exchange(address, b"GET / HTTP/1.1\r\nx-filler: ", *[b"a" * 5000] * 8)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_comes_too_slowly_is_cut_off(address: tuple[str, int]) -> None:
    """Slowloris: one byte now and then does not hold a connection."""
    answer = await exchange(address, b"GET / HTTP/1.1\r\n", *[b"x"] * 4, pause_s=0.2)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert not answer.endswith(b"<open>")


async def test_a_connection_that_says_nothing_is_closed(address: tuple[str, int]) -> None:
    """Without an answer: nothing was asked."""
    assert await exchange(address) == b""


@pytest.mark.parametrize("rest", [b"\r\n", b"\r\n\r\n"])
async def test_an_idle_connection_is_closed_whatever_comes_between_requests(
    address: tuple[str, int], rest: bytes
) -> None:
    """Empty lines before a request (RFC 9112, 2.2) begin none: they do not keep a connection for ever."""
    answer = await exchange(address, ONE, rest, pause_s=HEAD_TIMEOUT_S / 4)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert not answer.endswith(b"<open>")


async def test_the_rest_of_a_body_that_was_answered_keeps_no_connection(address: tuple[str, int]) -> None:
    """An answer may come before the body, as a 401 does: what is then sent of the body keeps no connection for ever."""
    head = b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    answer = await exchange(address, head, b"a", b"b", pause_s=HEAD_TIMEOUT_S / 4)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert not answer.endswith(b"<open>")


async def test_a_later_head_that_is_not_completed_gets_its_answer(address: tuple[str, int]) -> None:
    """A head that comes in one packet after another request, and never ends, is told so as the first one is."""
    answer = await exchange(address, ONE, b"GET / HTTP/1.1\r\nHost:", pause_s=HEAD_TIMEOUT_S / 4)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"HTTP/1.1 408 " in answer


async def test_a_request_that_has_begun_outlives_the_idle_time(address: tuple[str, int]) -> None:
    """Also one whose head came around the answer to the request before, which begins the idle time."""
    first = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    body = [b"x"] * 4
    answer = await exchange(address, first + head[:30], head[30:], *body, pause_s=0.8 * HEAD_TIMEOUT_S)
    assert b"/late|xxxx|" in answer


async def test_refusals_have_an_id_and_are_told(address: tuple[str, int], records: list[RequestRecord]) -> None:
    """An operator finds what a client quotes, and how long the head took."""
    answers = [
        await exchange(address, b"EHLO example.org\r\n\r\n"),
        await exchange(address, b"GET / HTTP/1.1\r\nx-filler: " + b"a" * 5 * MAX_HEADER_BYTES),
        await exchange(address, b"GET / HTTP/1.1\r\n"),
    ]
    for answer, record in zip(answers, records, strict=True):
        assert f"\r\nx-request-id: {record.request_id}\r\n".encode() in answer
    assert [(record.status, record.outcome) for record in records] == [
        (400, "refused"),
        (431, "refused"),
        (408, "refused"),
    ]
    assert [record.error_code for record in records] == ["invalid_value", "headers_too_large", "request_head_timeout"]
    assert records[2].duration_s == pytest.approx(HEAD_TIMEOUT_S, abs=0.3)


async def test_a_body_may_take_longer_than_a_head(address: tuple[str, int]) -> None:
    """The bound is on the head alone."""
    head = b"POST /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 6\r\n\r\n"
    answer = await exchange(address, head, b"abc", b"def", pause_s=HEAD_TIMEOUT_S)
    assert b"|abcdef|" in answer


async def test_a_connection_serves_requests_one_after_the_other(address: tuple[str, int]) -> None:
    """Bounds start anew with each request, pipelined ones too."""
    one = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + b"b" * 3000
    answer = await exchange(address, one * 12, one, last(one))
    assert answer.count(b"HTTP/1.1 200 OK") == 14


@pytest.mark.parametrize("cut", [1, 30])
async def test_bodies_do_not_count_among_a_later_head(address: tuple[str, int], cut: int) -> None:
    """A packet that ends a large body and begins the next head is no large head."""
    large = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"b" * 60_000
    again = last(ONE)
    answer = await exchange(address, large + again[:cut], again[cut:], pause_s=HEAD_TIMEOUT_S / 4)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


async def test_what_is_not_http_gets_our_error_body(address: tuple[str, int]) -> None:
    """A 400 in JSON, then the connection ends."""
    answer = await exchange(address, b"EHLO example.org\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert error_of(answer)["code"] == "invalid_value"


@pytest.mark.parametrize("split", [1, 60, 10_000])
async def test_an_offer_of_http2_keeps_the_body(address: tuple[str, int], split: int) -> None:
    """Java's HttpClient offers h2c with its POSTs: the offer is declined by an HTTP/1.1 answer, and the body counts."""
    request = (
        b"POST /v1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nContent-Length: 5\r\nX-Own: 1\r\n\r\nhello"
    )
    pieces = [request[at : at + split] for at in range(0, len(request), split)]
    answer = await exchange(address, *pieces, last(request))
    assert answer.count(b"/v1|hello|host,content-length,x-own") == 2


async def test_an_offer_of_http2_keeps_a_chunked_body(address: tuple[str, int]) -> None:
    """Whatever frames the body."""
    request = (
        b"POST /v1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n"
    )
    assert b"/v1|hello|" in await exchange(address, last(request))


async def test_connect_is_refused(address: tuple[str, int]) -> None:
    """Forebay is no proxy."""
    assert (await exchange(address, b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
        b"HTTP/1.1 400 "
    )
