"""What a request's body may be, whatever the route: size, depth, encoding, JSON. CVE-2025-48956 and its kin."""

from __future__ import annotations

import gzip
import itertools
import time
from collections.abc import Callable

import httpx
import pytest

from support.door import BODIES, CHAT, COMPLETIONS, DETOKENIZE, GENERATE, TOKENIZE, Door, check_refused
from support.server import ServerProcess
from support.wire import connect, exchange, head, post, read_answer

MIB = 1024 * 1024
LIMIT = 4 * MIB
EVERY = pytest.mark.parametrize("path", BODIES)
JSON = "Content-Type: application/json"


def test_a_declared_length_beyond_4_mib_is_refused_unread(server: ServerProcess) -> None:
    """CVE-2025-48956: no byte of the body is waited for."""
    answer = exchange(server.port, head("POST", CHAT, "Host: localhost", JSON, f"Content-Length: {LIMIT + 1}"))
    assert answer.status == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_length_beyond_64_bits_is_refused(server: ServerProcess) -> None:
    """A number that no parser should hold."""
    answer = exchange(server.port, head("POST", CHAT, "Host: localhost", JSON, f"Content-Length: {10**40}"))
    assert answer.status in (400, 413)


def test_a_chunked_body_is_counted_as_it_comes(server: ServerProcess) -> None:
    """CVE-2025-48956: a body without a length ends at the limit, however long it goes on."""
    with connect(server.port) as sock:
        sock.sendall(head("POST", CHAT, "Host: localhost", JSON, "Transfer-Encoding: chunked"))
        for _ in range(5):
            sock.sendall(b"%x\r\n" % MIB + b" " * MIB + b"\r\n")
        answer = read_answer(sock)
    assert answer.status == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_body_of_4_mib_is_read(door: Door) -> None:
    """The bound itself is allowed."""
    body = b'{"tokens": [104]' + b" " * (LIMIT - 17) + b"}"
    assert len(body) == LIMIT
    assert door.send(DETOKENIZE, body).json() == {"prompt": "h"}
    check_refused(door.send(DETOKENIZE, body + b" "), None, "request_too_large", 413)


def test_bounds_are_settings(make_server: Callable[..., ServerProcess]) -> None:
    """An operator may move them."""
    server = make_server(
        FOREBAY_ENGINE="scripted",
        FOREBAY_MAX_BODY_BYTES="100",
        FOREBAY_MAX_JSON_DEPTH="2",
        FOREBAY_MAX_HEADER_BYTES="300",
    )
    with httpx.Client(base_url=server.url) as client:
        assert client.post(GENERATE, json={"prompt": "a", "max_tokens": 1}).status_code == 200
        assert client.post(GENERATE, json={"prompt": "a" * 100}).status_code == 413
        check_refused(client.post(GENERATE, json={"prompt": "a", "stop": [["a"]]}), None)
        assert client.get("/live", headers={"x-filler": "a" * 300}).status_code == 431


@EVERY
def test_64_levels_are_the_deepest(door: Door, path: str) -> None:
    """The body itself is the first level."""
    answer = door.send(path, b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}")
    check_refused(answer, None)
    assert "64 levels" in answer.json()["error"]["message"]
    answer = door.send(path, b'{"x": ' + b"[" * 63 + b"]" * 63 + b"}")
    assert "levels" not in answer.json()["error"]["message"]


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_a_hundred_thousand_levels_are_a_refusal_and_no_crash(door: Door, opening: bytes) -> None:
    """A parser that recurses runs out of stack, and takes the process along."""
    check_refused(door.send(CHAT, opening * 100_000), None)
    check_refused(door.send(CHAT, b'{"messages": ' + opening * 100_000), None)
    assert door.get("/live").status_code == 200


@EVERY
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"])
def test_compressed_bodies_are_refused(door: Door, path: str, encoding: str) -> None:
    """A kilobyte of gzip can hold a gigabyte of JSON."""
    answer = door.send(path, gzip.compress(b'{"prompt": "hi"}'), **{"content-encoding": encoding})
    check_refused(answer, None, "unsupported_media_type", 415)


@EVERY
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", "json"]
)
def test_other_content_types_are_refused(door: Door, path: str, kind: str) -> None:
    """What browsers send across origins without asking is none of `application/json`."""
    check_refused(door.send(path, b"{}", **{"content-type": kind}), None, "unsupported_media_type", 415)


def test_a_missing_content_type_is_refused(server: ServerProcess) -> None:
    """As a wrong one."""
    assert exchange(server.port, head("POST", CHAT, "Host: localhost", "Content-Length: 2"), b"{}").status == 415


def test_parameters_of_the_content_type_are_taken(door: Door) -> None:
    """And its letters may be of any case."""
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/json;x=y"):
        assert door.send(TOKENIZE, b'{"prompt": "hi"}', **{"content-type": kind}).status_code == 200


@EVERY
@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"nul", b"{'a': 1}", b'{"a": 1,}', b"{} {}", b'{"a": 01}', b"\xff", b"\0"]
)
def test_what_is_not_json_is_refused(door: Door, path: str, body: bytes) -> None:
    """With a place, and without a quotation."""
    answer = door.send(path, body)
    check_refused(answer, None)
    assert "not valid JSON" in answer.json()["error"]["message"]


@EVERY
@pytest.mark.parametrize("body", ["null", "[]", "1", '"x"', "true", "[{}]"])
def test_what_is_no_object_is_refused(door: Door, path: str, body: str) -> None:
    """Every route takes an object."""
    check_refused(door.send(path, body), None)


STRINGS = {
    CHAT: [
        '{"messages": [{"role": "user", "content": "@"}]}',
        '{"messages": [{"role": "@", "content": "hi"}]}',
        '{"messages": [{"role": "user", "content": "hi", "name": "@"}]}',
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "@"}]}]}',
        '{"messages": [{"role": "user", "content": [{"type": "@", "text": "hi"}]}]}',
        '{"messages": [{"role": "assistant", "content": "hi", "reasoning": "@"}]}',
        '{"messages": [{"role": "user", "content": "hi"}], "model": "@"}',
        '{"messages": [{"role": "user", "content": "hi"}], "stop": "@"}',
        '{"messages": [{"role": "user", "content": "hi"}], "stop": ["@"]}',
        '{"messages": [{"role": "user", "content": "hi"}], "user": "@"}',
        '{"messages": [{"role": "user", "content": "hi"}], "safety_identifier": "@"}',
        '{"messages": [{"role": "user", "content": "hi"}], "reasoning_effort": "@"}',
        '{"messages": [{"role": "user", "content": "hi"}], "metadata": {"a": "@"}}',
        '{"messages": [{"role": "user", "content": "hi"}], "metadata": {"@": "a"}}',
        '{"messages": [{"role": "user", "content": "hi"}], "logit_bias": {"@": 1}}',
        '{"messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": {"date_string": "@"}}',
        '{"messages": [{"role": "user", "content": "hi"}], "stream": true, "stream_options": {"@": true}}',
        '{"messages": [{"role": "user", "content": "hi"}], "@": 1}',
    ],
    COMPLETIONS: ['{"prompt": "@"}', '{"prompt": ["hi", "@"]}', '{"prompt": "hi", "suffix": "@"}'],
    GENERATE: ['{"prompt": "@"}', '{"prompt": "hi", "stop": "@"}'],
    TOKENIZE: ['{"prompt": "@"}', '{"messages": [{"role": "user", "content": "@"}]}', '{"prompt": "hi", "model": "@"}'],
    DETOKENIZE: ['{"tokens": [104], "model": "@"}'],
}
HALVES = (
    b"\\ud800",
    b"\\udfff",
    b"a\\ud83d",
    b"\\ude00\\ud83d",
    b"\xed\xa0\x80",
    b"\xc3",
    b"\xc0\xaf",
    b"\xf5\x80\x80\x80",
)


@pytest.mark.parametrize(("path", "template"), [(path, one) for path, all_ in STRINGS.items() for one in all_])
def test_half_characters_are_refused(door: Door, path: str, template: str) -> None:
    """Lone surrogates and broken UTF-8 (RFC 8259, sections 8.1 and 8.2): a 400, never a 500."""
    for half in HALVES:
        check_refused(door.send(path, template.encode().replace(b"@", half)), None)


def test_whole_characters_are_taken(door: Door) -> None:
    """A pair of escapes is one character; control characters and NUL are text like any other."""
    assert door.send(GENERATE, b'{"prompt": "\\ud83d\\ude00", "max_tokens": 1}').json()["prompt"] == "\U0001f600"
    assert door.send(GENERATE, b'{"prompt": "\\u0000\\u001b\\uffff", "max_tokens": 1}').status_code == 200


@pytest.mark.parametrize("field", ["max_tokens", "seed", "n", "top_k", "temperature", "stop_token_ids", "logit_bias"])
def test_huge_integers_are_refused(door: Door, field: str) -> None:
    """They are read as they stand or not at all, and never wrap around."""
    for digits in (20, 400, 100_000):
        value = "9" * digits
        value = {"stop_token_ids": f"[{value}]", "logit_bias": f'{{"1": {value}}}'}.get(field, value)
        answer = door.send(COMPLETIONS, f'{{"prompt": "hi", "{field}": {value}}}')
        assert answer.status_code == 400, answer.text
        assert len(answer.content) < 1000


def test_of_duplicate_keys_the_last_counts(door: Door) -> None:
    """As in Python's and JavaScript's parsers, so that a check in front of us reads what we read."""
    answer = door.send(GENERATE, b'{"prompt": "first", "max_tokens": 1, "prompt": "last"}')
    assert answer.json()["prompt"] == "last"
    check_refused(door.send(GENERATE, b'{"prompt": "first", "max_tokens": 1, "max_tokens": 0}'), "max_tokens")


MANY = 1_000_000
MEMBERS = 250_000
COSTLY = {
    "prompts of the wrong type": (COMPLETIONS, '{"prompt": [' + "1.5," * MANY + "1]}"),
    "ids out of range": (COMPLETIONS, '{"prompt": [' + "-1," * MANY + "1]}"),
    "lists that are empty": (COMPLETIONS, '{"prompt": [' + "[]," * MANY + "1]}"),
    "parts of the wrong type": (CHAT, '{"messages": [{"role": "user", "content": [' + "1," * MANY + "1]}]}"),
    "messages of the wrong type": (CHAT, '{"messages": [' + "1," * MANY + "1]}"),
    "tokens out of range": (DETOKENIZE, '{"tokens": [' + "-1," * MANY + "1]}"),
    "members of the wrong type": (CHAT, '{"messages": [], "logit_bias": {' + '"%d":"",' * MEMBERS + '"x":1}}'),
    "template variables": (CHAT, '{"messages": [], "chat_template_kwargs": {' + '"%d":[],' * MEMBERS + '"x":1}}'),
    "fields": (CHAT, "{" + '"%d":[],' * MEMBERS + '"x":1}'),
    "nested lists": (CHAT, '{"x": ' + "[" * 60 + "[]," * MANY + "[]" + "]" * 60 + "}"),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_a_body_full_of_mistakes_is_refused_at_the_first(server: ServerProcess, kind: str) -> None:
    """A complaint about each of a million items took 11 s and 3 GB; meanwhile nobody else was answered."""
    path, text = COSTLY[kind]
    numbers = itertools.count()
    body = "".join(piece + str(next(numbers)) for piece in text.split("%d")) if "%d" in text else text
    assert len(body) < LIMIT
    with connect(server.port) as sock, httpx.Client(base_url=server.url) as bystander:
        sock.sendall(post(path, body.encode()))
        began = time.monotonic()
        assert bystander.get("/live").status_code == 200
        answer = read_answer(sock)
        assert answer.status == 400
        assert time.monotonic() - began < 3
        assert len(answer.body) < 1000


def test_names_in_errors_are_short(door: Door) -> None:
    """An error does not send a client's megabytes back."""
    long = "a" * MIB
    for body in (
        f'{{"{long}": 1}}',
        f'{{"prompt": "hi", "stream": true, "stream_options": {{"{long}": 1}}}}',
        f'{{"prompt": "hi", "model": "{long}"}}',
        f'{{"prompt": "hi", "logit_bias": {{"{long}": "x"}}}}',
        f'{{"prompt": "hi", "metadata": {{"{long}": 1}}}}',
    ):
        answer = door.send(COMPLETIONS, body)
        assert answer.status_code == 400
        assert len(answer.content) < 1000
