"""What a request's head may be, and what of it comes back. CVE-2025-48956."""

from __future__ import annotations

import json
import socket

import pytest

from support.door import BODIES, CHAT, Door, check_refused
from support.server import ServerProcess
from support.wire import connect, eventually, exchange, head, read_until

LIMIT = 32 * 1024
MIB = 1024 * 1024


def test_headers_beyond_32_kib_are_refused(server: ServerProcess) -> None:
    """CVE-2025-48956: names and values together; one value, many values or many names."""
    fillers = (
        [f"X-Filler: {'a' * LIMIT}"],
        ["X-Filler: " + "a" * 100] * 400,
        [f"{'a' * 100}{number}: x" for number in range(400)],
    )
    for lines in fillers:
        answer = exchange(server.port, head("GET", "/live", "Host: x", *lines))
        assert answer.status == 431
        assert answer.json()["error"]["code"] == "headers_too_large"


def test_headers_of_31_kib_are_read(server: ServerProcess) -> None:
    """Near the bound all is well."""
    assert exchange(server.port, head("GET", "/live", "Host: x", f"X-Filler: {'a' * (31 * 1024)}")).status == 200


def test_a_head_without_end_is_cut_off(server: ServerProcess) -> None:
    """CVE-2025-48956: what is not complete is bounded too, before anything knows whose it is."""
    with connect(server.port) as sock:
        sock.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\nX-Filler: ")
        sock.sendall(b"a" * (8 * LIMIT))
        assert b" 431 " in read_until(sock, b"headers_too_large")


@pytest.mark.parametrize("target", ["/" + "a" * LIMIT, "/live?" + "a" * LIMIT])
def test_a_long_target_is_an_ordinary_request(server: ServerProcess, target: str) -> None:
    """Targets are bounded with the head, and come back in no answer."""
    answer = exchange(server.port, head("GET", target, "Host: x"))
    assert answer.status == (200 if "?" in target else 404)
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_400_and_no_crash(server: ServerProcess, raw: bytes) -> None:
    """Two framings of one body, which let a request be smuggled past a proxy, are among it (RFC 9112, section 6.3)."""
    answer = exchange(server.port, raw)
    assert answer.status in (400, 404)
    assert answer.json()["error"]["type"] in ("invalid_request_error", "not_found_error")


def test_what_is_not_http_is_logged_and_counted(door: Door, server: ServerProcess) -> None:
    """Refused before there is a request: with an id all the same, one line in the log and one in the metrics."""
    count = 'forebay_requests_total{outcome="refused",route="unmatched",status="400"}'
    before = _sample(door, count)
    answer = exchange(server.port, b"EHLO example.org\r\n\r\n")
    request_id = answer.headers["x-request-id"]
    eventually(lambda: request_id in server.log)
    line = next(json.loads(line) for line in server.log.splitlines() if request_id in line)
    assert (line["event"], line["status"], line["outcome"]) == ("request", 400, "refused")
    assert line["error_code"] == "invalid_value"
    assert "example" not in json.dumps(line)
    assert _sample(door, count) == before + 1


def _sample(door: Door, name: str) -> float:
    lines = door.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def test_a_broken_chunk_ends_the_connection(server: ServerProcess) -> None:
    """What comes after it cannot be told from a body any more."""
    with connect(server.port) as sock:
        sock.sendall(head("POST", CHAT, "Host: x", "Content-Type: application/json", "Transfer-Encoding: chunked"))
        sock.sendall(b"zz\r\n" + head("GET", "/live", "Host: x"))
        assert b"alive" not in sock.makefile("rb").read()


@pytest.mark.parametrize("value", ["trace-1", "a" * 128, "ümlaut", "a\tb", "", "a" * 129, "é" * 20])
def test_a_request_id_comes_back_if_it_is_short_and_printable(server: ServerProcess, value: str) -> None:
    """Else ours does. It is never used inside."""
    answer = exchange(server.port, head("GET", "/live", "Host: x", f"X-Request-Id: {value}"))
    plain = 0 < len(value) <= 128 and value.isascii() and value.isprintable()
    assert (answer.headers["x-request-id"] == value) is plain
    assert answer.headers["x-request-id"].isascii()


def test_a_request_id_cannot_add_a_header(server: ServerProcess) -> None:
    """No line ending of a client's gets into an answer's head, raw or in a header that is folded."""
    for ending in ("\r\n ", "\n ", "\r", "\r\n\t"):
        with connect(server.port) as sock:
            sock.sendall(head("GET", "/live", "Host: x", "Connection: close", f"X-Request-Id: a{ending}X-Evil: 1"))
            answer = sock.makefile("rb").read()
        assert b"\nx-evil" not in answer.lower()
        assert b"\rx-evil" not in answer.lower()


def test_a_path_cannot_add_a_header(server: ServerProcess) -> None:
    """Nor can an escaped one in the path, and nothing redirects to where a Host header points."""
    for target in ("/v1/models/%0d%0aX-Evil:%201", "/%0d%0aX-Evil:%201", "/live/", "//live", "/live//"):
        answer = exchange(server.port, head("GET", target, "Host: evil.example"))
        assert answer.status in (200, 404)
        assert "x-evil" not in answer.headers
        assert "location" not in answer.headers


def test_trailers_are_no_headers(server: ServerProcess) -> None:
    """RFC 9110, section 6.5.1: what comes after the body changes nothing of how it is read."""
    body = b'{"prompt": "hi"}'
    request = head("POST", "/tokenize", "Host: localhost", "Content-Type: text/plain", "Transfer-Encoding: chunked")
    request += b"%x\r\n%s\r\n0\r\nContent-Type: application/json\r\nX-Request-Id: trailer\r\n\r\n" % (len(body), body)
    answer = exchange(server.port, request)
    assert answer.status == 415
    assert answer.headers["x-request-id"] != "trailer"


def test_trailers_without_end_are_cut_off(server: ServerProcess) -> None:
    """CVE-2025-48956: the head is not the only place for headers; a stranger's are bounded too."""
    for begin in (b"0\r\nX-Filler: ", b"0;x="):
        with connect(server.port) as sock:
            sock.sendall(head("POST", CHAT, "Host: x", "Transfer-Encoding: chunked") + begin)
            with pytest.raises(ConnectionError):
                _send_without_end(sock, 64 * MIB)


def _send_without_end(sock: socket.socket, num_bytes: int) -> None:
    for _ in range(num_bytes // MIB):
        sock.sendall(b"a" * MIB)


INTERNAL_HEADERS = {
    "X-Vllm-Priority": "-100",
    "X-data-parallel-rank": "1",
    "X-Session-ID": "theirs",
    "X-Request-Id": "theirs",
}


def test_headers_of_the_engine_change_nothing(door: Door) -> None:
    """vLLM's server takes orders from them; here they are not read. What they can do is in test_internals.py."""
    plain = door.post(CHAT, temperature=0, max_tokens=5).json()["choices"]
    body = json.dumps(BODIES[CHAT] | {"temperature": 0, "max_tokens": 5})
    answer = door.send(CHAT, body, **INTERNAL_HEADERS)
    assert answer.json()["choices"] == plain
    assert "theirs" not in answer.text


def test_a_wrong_method_names_the_right_ones(server: ServerProcess) -> None:
    """405 with `Allow`; methods that nobody knows are a 400 or a 405, never a 500."""
    answer = exchange(server.port, head("GET", CHAT, "Host: x"))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    for method in ("TRACE", "PROPFIND", "BREW", "X" * 1000):
        assert exchange(server.port, head(method, "/live", "Host: x")).status in (400, 405)


def test_an_unknown_query_is_ignored(door: Door) -> None:
    """No route reads its query."""
    assert door.get("/live?key=secret&%ff=%00").status_code == 200
    check_refused(door.send(CHAT + "?messages=x", "{}"), "messages")
