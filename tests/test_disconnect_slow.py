"""Clients that read slowly or not at all, leave behind a backlog, or vanish without a word."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, post, read_until, reset
from support.witness import Witness

CHAT = "/v1/chat/completions"
TINY = 4096
KEEPALIVE_S = 7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with journalled_server(
        tmp_path_factory.mktemp("disconnect_slow"),
        FOREBAY_MAX_NUM_SEQS="8",
        FOREBAY_MAX_MODEL_LEN="100000",
        FOREBAY_TCP_KEEPALIVE_S=str(KEEPALIVE_S),
    ) as running:
        yield running


def chat(max_tokens: int, *, burst: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "metadata": {"forebay_burst": str(burst)},
        **more,
    }


def send(sock: socket.socket, witness: Witness, body: dict[str, Any]) -> str:
    """The request's id."""
    seen = witness.seen()
    sock.sendall(post(CHAT, body))
    return witness.newest(seen)


def wait_until_blocked(witness: Witness, request_id: str) -> None:
    """The engine has finished although the client has not read; nothing can be sent any more."""
    witness.wait_for(request_id, "finish", count=8, timeout_s=20)
    assert witness.load().running == 0


def test_a_client_that_does_not_read_holds_no_slot(server: ServerProcess, witness: Witness) -> None:
    """The engine writes on into memory bounded by `max_tokens`, others are served, nothing is lost for the client."""
    with connect(server.port, receive_buffer=TINY) as slow:
        request_id = send(slow, witness, chat(2500, n=8, logprobs=True, top_logprobs=20))
        wait_until_blocked(witness, request_id)
        with connect(server.port) as other:
            other.sendall(post(CHAT, chat(3)))
            read_until(other, b"data: [DONE]")
        eventually(lambda: witness.load().in_flight == 1)
        text = read_until(slow, b"data: [DONE]\n\n")
    last_chunk = json.loads(re.findall(rb"data: (\{.*\})\n", text)[-1])
    assert last_chunk["usage"]["completion_tokens"] == 20_000
    assert witness.line(request_id)["outcome"] == "ok"
    assert witness.line(request_id)["completion_tokens"] == 20_000


def test_a_backlog_is_billed_to_who_leaves_it(server: ServerProcess, witness: Witness) -> None:
    """Reading nothing and leaving is no way to get tokens for free: what was generated counts, delivered or not."""
    with connect(server.port, receive_buffer=TINY) as slow:
        request_id = send(slow, witness, chat(2500, n=8, logprobs=True, top_logprobs=20))
        wait_until_blocked(witness, request_id)
        reset(slow)
    line = witness.line(request_id)
    assert (line["outcome"], line["completion_tokens"]) == ("client_gone", 20_000)
    witness.wait_idle()


def test_leaving_an_engine_that_never_pauses(server: ServerProcess, witness: Witness) -> None:
    """A next token that is always there already must not keep the handler from noticing that the client has left."""
    with connect(server.port) as sock:
        request_id = send(sock, witness, chat(60_000, logprobs=True, top_logprobs=20))
        read_until(sock, b"data: ", count=100)
        reset(sock)
    witness.wait_for(request_id, "abort", timeout_s=10)
    line = witness.line(request_id)
    assert line["outcome"] == "client_gone"
    assert line["completion_tokens"] == witness.num_generated(request_id) < 60_000
    witness.wait_idle()


def test_keepalive_runs_on_connections(server: ServerProcess) -> None:
    """A peer that vanishes, power and all, sends no FIN: the kernel asks after it, as the settings say.

    /proc/net/tcp shows the timer of each socket: 02 is keepalive, with the hundredths of a second that are left.
    """
    with connect(server.port) as sock:
        ours = f"{sock.getsockname()[1]:04X}"
        here = re.compile(rf" \w+:{server.port:04X} \w+:{ours} 01 \S+ (\w\w):(\w+) ")
        match = eventually(lambda: here.search(Path("/proc/net/tcp").read_text()))
    assert match[1] == "02"
    assert (KEEPALIVE_S - 2) * 100 < int(match[2], 16) <= KEEPALIVE_S * 100


def test_a_peer_whose_window_stays_shut_is_still_there(server: ServerProcess, witness: Witness) -> None:
    """Slow is not gone: reading resumes after a pause, and the stream goes on to its end."""
    with connect(server.port, receive_buffer=TINY) as slow:
        request_id = send(slow, witness, chat(2000, n=8))
        read_until(slow, b"data: ")
        time.sleep(1.0)
        read_until(slow, b"data: [DONE]\n\n")
    assert witness.line(request_id)["outcome"] == "ok"


def test_a_window_that_never_opens_again_is_the_end(make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """TCP_USER_TIMEOUT counts for a peer that answers and takes nothing, too: it cannot hold its place for ever."""
    with (
        journalled_server(tmp_path, FOREBAY_MAX_NUM_SEQS="8", FOREBAY_TCP_USER_TIMEOUT_S="1") as server,
        closing(Witness(server)) as witness,
        connect(server.port, receive_buffer=TINY) as slow,
    ):
        request_id = send(slow, witness, chat(2500, n=8, logprobs=True, top_logprobs=20))
        line = eventually(
            lambda: next((one for one in witness.lines() if one["request_id"] == request_id), None), timeout_s=20
        )
        assert line["outcome"] == "client_gone"
        assert line["completion_tokens"] == witness.num_generated(request_id)
        witness.wait_idle()


def test_a_client_that_reads_slowly_gets_the_end(server: ServerProcess, witness: Witness) -> None:
    """Usage and `[DONE]` wait for it as all frames before did, however long ago the engine has finished."""
    with connect(server.port, receive_buffer=TINY) as sock:
        request_id = send(sock, witness, chat(4000, logprobs=True, top_logprobs=20))
        witness.wait_for(request_id, "finish", timeout_s=20)
        num_read, tail = 0, b""
        while not tail.endswith(b"0\r\n\r\n"):
            piece = sock.recv(65536)
            assert piece, tail
            if (num_read + len(piece)) >> 20 > num_read >> 20:
                time.sleep(1.2)
            num_read, tail = num_read + len(piece), (tail + piece)[-200:]
    assert b"data: [DONE]\n\n" in tail
    assert witness.line(request_id)["outcome"] == "ok"
