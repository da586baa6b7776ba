"""Clients that leave, at every stage, in every way: the engine stops, the slot is free, the bill is what was made."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, finish, half_close, post, read_until, reset
from support.witness import Witness

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
NOTICED_S = 0.25
ATTEMPTS = 4
"""A busy machine can be late; one that is never in time is not busy."""

LEAVE = {"FIN": finish, "RST": reset, "half-close": half_close}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Four slots, one step in 5 ms, and a journal."""
    with journalled_server(tmp_path_factory.mktemp("disconnect"), FOREBAY_MAX_NUM_SEQS="4") as running:
        yield running


@dataclass(frozen=True, slots=True)
class Stage:
    """A request, what to wait for before leaving, and how many choices it has."""

    path: str
    body: dict[str, Any]
    reached: bytes | None
    num_choices: int = 1


def chat(stream: bool, first_ms: int = 0, inter_ms: int = 5, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": stream,
        "metadata": {"forebay_first_token_ms": str(first_ms), "forebay_inter_token_ms": str(inter_ms)},
        **more,
    }


def prompts(stream: bool) -> dict[str, Any]:
    body = chat(stream)
    del body["messages"]
    return body | {"prompt": ["one", "two"], "n": 2}


FIRST, CHUNK = b'"role":"assistant"', b'"content":"'
STAGES = {
    "stream, before the first token": Stage(CHAT, chat(True, first_ms=60_000), None),
    "stream, at the first token": Stage(CHAT, chat(True, inter_ms=60_000), FIRST),
    "stream, midway": Stage(CHAT, chat(True), CHUNK),
    "stream of four choices": Stage(CHAT, chat(True, n=4), CHUNK, num_choices=4),
    "stream of two prompts with two choices": Stage(COMPLETIONS, prompts(True), b'"index":3', num_choices=4),
    "whole answer, before the first token": Stage(CHAT, chat(False, first_ms=60_000), None),
    "whole answer, midway": Stage(CHAT, chat(False), None),
    "whole answer of two prompts with two choices": Stage(COMPLETIONS, prompts(False), None, num_choices=4),
}


@pytest.mark.parametrize("way", LEAVE)
@pytest.mark.parametrize("name", STAGES)
def test_work_for_a_client_that_left_is_aborted(server: ServerProcess, witness: Witness, name: str, way: str) -> None:
    """Within 250 ms; the slots are free at the engine's next step, and the log's tokens are the engine's."""
    took = [leave(server, witness, STAGES[name], LEAVE[way])]
    while took[-1] > NOTICED_S and len(took) < ATTEMPTS:
        took.append(leave(server, witness, STAGES[name], LEAVE[way]))
    assert took[-1] <= NOTICED_S, took
    witness.wait_idle()


def leave(server: ServerProcess, witness: Witness, stage: Stage, way: Callable[[socket.socket], None]) -> float:
    """Asks, waits for the stage, leaves. Seconds until the engine was told; checks the bill."""
    seen = witness.seen()
    with connect(server.port) as sock:
        sock.sendall(post(stage.path, stage.body))
        request_id = witness.newest(seen)
        witness.wait_for(request_id, "start", count=stage.num_choices)
        if stage.reached is not None:
            read_until(sock, stage.reached, count=3 if stage.reached == CHUNK else 1)
        elif stage.body["metadata"]["forebay_first_token_ms"] == "0":
            witness.wait_for(request_id, "tokens", count=5)
        left_at = time.monotonic()
        way(sock)
        witness.wait_for(request_id, "abort", count=stage.num_choices)
        took = time.monotonic() - left_at

    line = witness.line(request_id)
    assert line["outcome"] == "client_gone"
    generated = witness.num_generated(request_id)
    assert line["completion_tokens"] == generated
    assert generated == sum(e["num_tokens"] for e in witness.journal(request_id) if e["event"] == "abort")
    assert "finish" not in {event["event"] for event in witness.journal(request_id)}
    return took


@pytest.mark.parametrize("way", LEAVE)
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_the_queue_never_starts(
    server: ServerProcess, witness: Witness, stream: bool, way: str
) -> None:
    """Waiting for a slot it costs nothing and holds nothing: whoever waits behind gets the slot."""
    seen, logged = witness.seen(), {line["request_id"] for line in witness.lines()}

    def new_lines() -> list[dict[str, Any]]:
        return [line for line in witness.lines() if line["request_id"] not in logged and line["method"] == "POST"]

    with connect(server.port) as holder, connect(server.port) as leaver, connect(server.port) as patient:
        holder.sendall(post(CHAT, chat(True, n=4)))
        read_until(holder, CHUNK)
        leaver.sendall(post(CHAT, chat(stream)))
        wait_until_waiting(witness, 1)
        patient.sendall(post(GENERATE, {"prompt": "go", "max_tokens": 1}))
        wait_until_waiting(witness, 2)
        LEAVE[way](leaver)
        wait_until_waiting(witness, 1)
        finish(holder)
        read_until(patient, b'"tokens_generated":1')
    witness.wait_idle()
    assert len(witness.seen() - seen) == 2  # the holder and the patient one
    gone = eventually(lambda: next((line for line in new_lines() if line["request_id"] not in witness.seen()), None))
    assert (gone["outcome"], gone["completion_tokens"]) == ("client_gone", 0)


@pytest.mark.parametrize("together", [True, False], ids=["one packet", "later"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_has_asked_for_more_leaves_both(
    server: ServerProcess, witness: Witness, stream: bool, together: bool
) -> None:
    """Its next request waits on the same connection: the one that is answered ends, the next one never starts."""
    seen, first, second = witness.seen(), post(CHAT, chat(stream)), post(CHAT, chat(False))
    with connect(server.port) as sock:
        sock.sendall(first + second if together else first)
        request_id = witness.newest(seen)
        if not together:
            sock.sendall(second)
        witness.wait_for(request_id, "tokens", count=20)
    witness.wait_for(request_id, "abort")
    line = witness.line(request_id)
    assert (line["outcome"], line["completion_tokens"]) == ("client_gone", witness.num_generated(request_id))
    witness.wait_idle()
    assert witness.seen() - seen == {request_id}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_said_much_is_seen_to_leave(server: ServerProcess, witness: Witness, stream: bool) -> None:
    """A body whose last piece was large does not leave its connection unread, also before the first token."""
    seen = witness.seen()
    request = post(CHAT, json.dumps(chat(stream, first_ms=60_000)).encode() + b" " * 150_000)
    begins = request.index(b"\r\n\r\n") + 4
    with connect(server.port) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.sendall(request[:begins])
        time.sleep(0.05)
        server.signal(signal.SIGSTOP)  # so that the body comes in one piece
        sock.sendall(request[begins:])
        server.signal(signal.SIGCONT)
        request_id = witness.newest(seen)
        witness.wait_for(request_id, "start")
    witness.wait_for(request_id, "abort")
    assert witness.line(request_id)["outcome"] == "client_gone"


def wait_until_waiting(witness: Witness, count: int) -> None:
    deadline = time.monotonic() + 5
    while witness.load().waiting != count:
        assert time.monotonic() < deadline, witness.load()
        time.sleep(0.01)


def test_aborts_are_measured(server: ServerProcess, witness: Witness) -> None:
    """/metrics tells how long it takes from noticing that a client left to telling the engine."""
    before = witness.value("forebay_client_abort_seconds_count")
    for stream in (True, False):
        leave(server, witness, Stage(CHAT, chat(stream), None), reset)
        witness.wait_idle()
    assert witness.value("forebay_client_abort_seconds_count") == before + 2
    assert witness.value(r'forebay_client_abort_seconds_bucket\{le="0.25"\}') == before + 2
