"""The load's client against servers that answer wrongly, and against one that closes connections."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import pytest

from forebay.bench.client import Client, Target
from forebay.bench.outcome import Outcome
from forebay.errors import ConfigurationError
from support.broken_server import DONE, FRAME, LAST, STREAM, USAGE, Handler, read_request, says, serving
from support.certificates import self_signed

WHOLE = b'{"choices":[{"message":{"content":"hello"}}],"usage":{"prompt_tokens":3,"completion_tokens":2}}'


async def ask(handle: Handler, *, usage_only: bool = False, **options: float) -> Outcome:
    async with serving(handle) as url:
        client = Client(Target(url, **options))  # type: ignore[arg-type]
        try:
            return await client.ask({"stream": True}, keep_text=True, usage_only=usage_only)
        finally:
            client.close()


async def test_a_stream_is_timed_and_its_tokens_are_those_of_usage() -> None:
    """Two frames and a usage of two tokens: TTFT before E2EL, one gap, a text of both, whatever lies between lines."""
    head = STREAM + b": ping\r\n\r\n"
    outcome = await ask(says(head, FRAME[:20], FRAME[20:].replace(b"\n", b"\r\n"), LAST + USAGE, DONE))
    assert outcome.failure is None, outcome
    assert outcome.text == "ab"
    assert (outcome.prompt_tokens, outcome.output_tokens) == (3, 2)
    assert outcome.ttft_s is not None
    assert 0 < outcome.ttft_s < outcome.latency_s
    assert outcome.itls_s == [pytest.approx(outcome.latency_s - outcome.ttft_s)]
    assert outcome.tpot_s == pytest.approx(outcome.latency_s - outcome.ttft_s)


async def test_tokens_are_not_counted_from_frames() -> None:
    """A stream without usage is an answer, of which nobody knows how many tokens it has."""
    outcome = await ask(says(STREAM + FRAME + LAST + DONE))
    assert outcome.failure is None
    assert outcome.output_tokens is None
    assert outcome.tpot_s is None


async def test_of_a_stream_the_usage_alone_can_be_read() -> None:
    """However long the stream and wherever it is cut into pieces; nothing else of it is known then."""
    outcome = await ask(says(STREAM + FRAME * 100, LAST + USAGE[:9], USAGE[9:] + DONE), usage_only=True)
    assert (outcome.failure, outcome.prompt_tokens, outcome.output_tokens) == (None, 3, 2)
    assert (outcome.ttft_s, outcome.itls_s) == (None, [])
    assert outcome.latency_s > 0


@pytest.mark.parametrize(
    ("handle", "kind", "message"),
    [
        (says(STREAM + FRAME + LAST + DONE), "cut", "without usage"),
        (says(STREAM + FRAME, reset=True), "cut|reset", ""),
        (says(STREAM + b'data: {"error":{"message":"engine died"}}\n\n' + DONE), "stream_error", "engine died"),
        (says(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull"), "status_503", "full"),
    ],
)
async def test_a_stream_without_usage_is_no_answer_then(handle: Handler, kind: str, message: str) -> None:
    """What reads nothing but usage fails where there is none, and says what came instead."""
    outcome = await ask(handle, usage_only=True)
    assert re.fullmatch(kind, outcome.kind), outcome
    assert message in outcome.message


@pytest.mark.parametrize(
    ("handle", "kind", "message"),
    [
        (says(STREAM + FRAME), "cut", "without a finish reason"),
        (says(STREAM + DONE), "cut", "no choice"),
        (says(STREAM + FRAME, reset=True), "cut|reset", ""),
        (says(reset=True), "reset", ""),
        (says(), "reset", "before the answer was complete"),
        (says(STREAM + b"data: {not json\n\n" + LAST + DONE), "malformed", "not json"),
        (says(STREAM + b"data: [1]\n\n" + LAST + DONE), "malformed", "AttributeError"),
        (says(b"SMTP ready\r\n\r\n"), "malformed", "Not HTTP"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), "malformed", "KeyError"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}"), "reset", ""),
        (says(STREAM + FRAME + b'data: {"error":{"message":"engine died"}}\n\n' + DONE), "stream_error", "engine died"),
        (says(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull"), "status_503", "full"),
    ],
)
async def test_what_goes_wrong_is_told_apart(handle: Handler, kind: str, message: str) -> None:
    """Each way to fail is an outcome with its kind, never an exception, and counts as no answer."""
    outcome = await ask(handle)
    assert re.fullmatch(kind, outcome.kind), outcome
    assert message in outcome.message


async def test_no_listener_is_a_refusal() -> None:
    """A port that nobody listens on fails each request by itself."""
    async with serving(says()) as url:
        pass
    client = Client(Target(url))
    assert (await client.ask({})).kind == "refused"


async def test_an_answer_that_does_not_end_times_out() -> None:
    """After the target's limit the request has failed, and the connection is not used again."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + FRAME)
        await reader.read()
        writer.close()

    outcome = await ask(hang, timeout_s=0.1)
    assert outcome.kind == "timeout"
    assert 0.1 <= outcome.latency_s < 1


async def test_a_client_may_leave_and_come_back() -> None:
    """Leaving on purpose is no failure; the next request has a connection of its own."""
    num_left = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_left
        await read_request(reader)
        writer.write(STREAM + FRAME)
        num_left += await reader.read() == b""
        writer.close()

    async with serving(slow) as url:
        client = Client(Target(url))
        for _ in range(2):
            outcome = await client.ask({}, leave_after_s=0.05)
            assert outcome.left
            assert outcome.failure is None
        await asyncio.sleep(0.05)
    assert num_left == 2


async def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """A server that ends each connection after one answer, without saying so, fails no request."""
    num_connections = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE)
        await reader.read(1)  # the next request has begun
        writer.transport.abort()

    async with serving(once) as url:
        client = Client(Target(url))
        outcomes = [await client.ask({}) for _ in range(3)]
        client.close()
    assert [outcome.failure for outcome in outcomes] == [None] * 3
    assert num_connections == 3


async def test_a_whole_answer_has_no_ttft() -> None:
    """Without a stream there is E2EL alone, and the tokens of usage."""
    outcome = await ask(says(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE))
    assert (outcome.failure, outcome.ttft_s, outcome.output_tokens, outcome.text) == (None, None, 2, "hello")
    assert outcome.latency_s > 0


async def test_tls_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is a refusal, and no obstacle with `verify_tls=False`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path))
    handle = says(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE)
    async with serving(handle, context) as url:
        for verify, failure in ((True, "refused"), (False, None)):
            client = Client(Target(url, verify_tls=verify))
            outcome = await client.ask({})
            client.close()
            assert outcome.failure == failure, outcome


@pytest.mark.parametrize("url", ["ftp://host", "127.0.0.1:8000", "http://", "http://host:port"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="not a URL"):
        Client(Target(url))


def test_a_header_cannot_smuggle_another() -> None:
    """A line break in a header's value is refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="header"):
        Client(Target("http://host", headers={"X-A": "1\r\nX-B: 2"}))


@pytest.mark.parametrize(
    "url",
    [
        "http://a:b@x",
        "http://x?a=1",
        "http://x#y",
        "http://x:0",
        "http://x/\u00fc",
        "http://x/a b",
        "ftp://x",
        "http://",
    ],
)
def test_a_url_that_says_more_than_where_is_refused(url: str) -> None:
    """What would be dropped in silence is not taken."""
    with pytest.raises(ConfigurationError, match=re.escape(repr(url))):
        Client(Target(url))


@pytest.mark.parametrize(
    ("headers", "key", "said"),
    [
        ({"": "x"}, None, "'' is no name"),
        ({"A B": "x"}, None, "'A B' is no name"),
        ({"content-length": "3"}, None, "'content-length' is no name"),
        ({"X": "a\r\nb"}, None, "The header X of"),
        ({}, "\u00fc", "The header Authorization of"),
    ],
)
def test_a_header_that_cannot_be_sent_is_named(headers: dict[str, str], key: str | None, said: str) -> None:
    """Before anything is."""
    with pytest.raises(ConfigurationError, match=said):
        Client(Target("http://x", headers=headers, api_key=key))


async def test_a_given_header_stands_in_place_of_ours() -> None:
    """Whatever its case: a server that is told two hosts refuses both."""
    heads = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.close()

    async with serving(handle) as url:
        client = Client(Target(url, headers={"host": "other"}))
        await client.ask({})
        client.close()
    assert heads[0].count(b"host:") == 1
    assert b"host: other" in heads[0]
