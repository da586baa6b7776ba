"""No request outlives `request_timeout_s`, whatever it waits for; the engine is told, and the bill is right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, exchange, head, post, read_answer, read_until
from support.witness import Witness

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
JSON = "Content-Type: application/json"
LIMIT_S = 1.2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with journalled_server(
        tmp_path_factory.mktemp("timeouts"), FOREBAY_REQUEST_TIMEOUT_S=str(LIMIT_S), FOREBAY_MAX_NUM_SEQS="8"
    ) as running:
        yield running


def chat(stream: bool, first_ms: int = 0, inter_ms: int = 20, **more: Any) -> dict[str, Any]:
    delays = {"forebay_first_token_ms": str(first_ms), "forebay_inter_token_ms": str(inter_ms)}
    messages = [{"role": "user", "content": "go"}]
    return {
        "messages": messages, "max_tokens": 4000, "ignore_eos": True, "stream": stream, "metadata": delays, **more
    }  # fmt: skip


def check_account(witness: Witness, request_id: str, num_choices: int = 1) -> None:
    """Aborted, billed at most for what was generated, a whole answer for nothing, and nothing is left."""
    witness.wait_for(request_id, "abort", count=num_choices)
    line = witness.line(request_id)
    assert (line["outcome"], line["error_code"]) == ("timeout", "timeout")
    generated = witness.num_generated(request_id)
    if line["stream"]:
        assert line["completion_tokens"] <= generated
        assert line["completion_tokens"] + line.get("uncharged_tokens", 0) >= generated
    else:
        assert line["completion_tokens"] == 0
        assert line.get("uncharged_tokens", 0) >= generated
    assert line["duration_ms"] < 1000 * (LIMIT_S + 1)
    witness.wait_idle()


@pytest.mark.parametrize(("stream", "first_ms"), [(False, 60_000), (False, 0), (True, 60_000)])
def test_before_the_first_byte_it_is_a_504(
    server: ServerProcess, witness: Witness, stream: bool, first_ms: int
) -> None:
    """An answer that is not complete, or a stream without a first token."""
    answer = exchange(server.port, post(CHAT, chat(stream, first_ms)))
    assert answer.status == 504
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "timeout", None)
    assert error["message"] == f"The request took longer than {LIMIT_S} s."
    check_account(witness, answer.headers["x-request-id"])


@pytest.mark.parametrize(
    ("path", "body", "num_choices"),
    [
        (CHAT, chat(True), 1),
        (CHAT, chat(True, n=3), 3),
        (
            COMPLETIONS,
            {key: value for key, value in chat(True).items() if key != "messages"} | {"prompt": ["a", "b"]},
            2,
        ),
    ],
)
def test_after_the_first_byte_it_is_a_frame(
    server: ServerProcess, witness: Witness, path: str, body: dict[str, Any], num_choices: int
) -> None:
    """The error is the last frame but `[DONE]`."""
    with connect(server.port) as sock:
        sock.sendall(post(path, body))
        text = read_until(sock, b"data: [DONE]\n\n").decode()
    request_id = re.search(r"x-request-id: (\S+)", text)
    frames = re.findall(r"data: (\{.*\})\n", text)
    error = json.loads(frames[-1])["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "timeout", None)
    assert not any('"error"' in frame for frame in frames[:-1])
    assert request_id is not None
    check_account(witness, request_id[1], num_choices)


def test_waiting_for_a_slot_counts(server: ServerProcess, witness: Witness) -> None:
    """Time in the queue is time of the request."""
    with connect(server.port) as holder:
        holder.sendall(post(CHAT, chat(True, n=8)))
        read_until(holder, b'"content":"')
        waited = exchange(server.port, post(CHAT, chat(False)))
    assert waited.status == 504
    assert witness.line(waited.headers["x-request-id"])["duration_ms"] < 1000 * (2 * LIMIT_S - 0.2)
    witness.wait_idle()


def test_a_body_that_never_ends_is_a_504(server: ServerProcess, witness: Witness) -> None:
    """Also what comes byte by byte: the whole body has the time of a request."""
    with connect(server.port) as sock:
        sock.sendall(head("POST", CHAT, "Host: localhost", JSON, "Content-Length: 100") + b'{"mess')
        answer = read_answer(sock)
    assert answer.status == 504
    assert answer.json()["error"]["code"] == "timeout"
    witness.wait_idle()


def test_a_body_that_ends_early_is_a_client_that_left(server: ServerProcess, witness: Witness) -> None:
    """No failure of ours, and no traceback in the log."""
    with connect(server.port) as sock:
        sock.sendall(head("POST", CHAT, "Host: localhost", JSON, "Content-Length: 100") + b'{"mess')
        eventually(lambda: witness.load().in_flight == 1)
    eventually(lambda: [line for line in witness.lines() if line["outcome"] == "client_gone"])
    witness.wait_idle()
    assert "internal_error" not in server.log


def test_a_client_that_takes_nothing_is_left(server: ServerProcess, witness: Witness) -> None:
    """A send that stays blocked for as long as a request may take ends it; that is no failure of ours."""
    with connect(server.port, receive_buffer=4096) as slow:
        seen = witness.seen()
        slow.sendall(post(CHAT, chat(True, n=8, logprobs=True, top_logprobs=20) | {"metadata": {"forebay_burst": "1"}}))
        request_id = witness.newest(seen)
        line = eventually(
            lambda: next((one for one in witness.lines() if one["request_id"] == request_id), None), timeout_s=15
        )
        assert line["outcome"] in ("client_gone", "timeout")
        assert 0 < line["completion_tokens"] <= witness.num_generated(request_id)
    witness.wait_idle()
    assert "internal_error" not in server.log
