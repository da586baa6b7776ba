"""The bounded queue: who waits, who is refused and how, and that every place comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.server import ServerProcess, journalled_server
from support.wire import Answer, connect, eventually, exchange, finish, head, post, read_answer, read_until, reset
from support.witness import Witness

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
MAX_QUEUED, MAX_QUEUED_TOKENS = 3, 40


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One slot; three may wait, with 40 prompt tokens between them."""
    with journalled_server(
        tmp_path_factory.mktemp("overload"),
        FOREBAY_MAX_NUM_SEQS="1",
        FOREBAY_MAX_QUEUED_REQUESTS=str(MAX_QUEUED),
        FOREBAY_MAX_QUEUED_TOKENS=str(MAX_QUEUED_TOKENS),
    ) as running:
        yield running


def prompt(num_tokens: int) -> list[int]:
    return [104] * num_tokens


def completion(num_prompt_tokens: int = 1, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt(num_prompt_tokens), "max_tokens": 1, **more}


class Crowd:
    """Open connections: one holds the slot, others wait."""

    def __init__(self, server: ServerProcess, witness: Witness, stack: ExitStack) -> None:
        self._server, self._witness, self._stack = server, witness, stack
        self._holder = stack.enter_context(connect(server.port))
        delays = {"forebay_inter_token_ms": "60000"}
        self._holder.sendall(post(COMPLETIONS, completion(5, max_tokens=9, stream=True, metadata=delays)))
        read_until(self._holder, b"data: ")
        self._num_waiting = 0
        self._waiting = []

    def join(self, body: dict[str, Any], *lines: str) -> None:
        sock = self._stack.enter_context(connect(self._server.port))
        sock.sendall(post(COMPLETIONS, body, *lines))
        self._num_waiting += body.get("n", 1)
        eventually(lambda: self._witness.load().waiting == self._num_waiting)
        self._waiting.append(sock)

    def disperse(self) -> list[Answer]:
        """The holder leaves; those who wait are answered."""
        self._holder.close()
        return [read_answer(sock) for sock in self._waiting]


@pytest.fixture
def crowd(server: ServerProcess, witness: Witness) -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(server, witness, stack)
    witness.wait_idle()


def check_overloaded(answer: Answer) -> None:
    assert answer.status == 503
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", "overloaded", None)
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_beyond_the_queue_it_is_503(server: ServerProcess, crowd: Crowd, witness: Witness) -> None:
    """With Retry-After; those who wait are served, in the order in which they came."""
    seen = witness.seen()
    for _ in range(MAX_QUEUED):
        crowd.join(completion())
    for path, body in (
        (COMPLETIONS, completion()),
        (GENERATE, {"prompt": "a"}),
        (CHAT, {"messages": [{"role": "user", "content": "a"}]}),
    ):
        check_overloaded(exchange(server.port, post(path, body)))
        check_overloaded(exchange(server.port, post(path, body | ({} if path == GENERATE else {"stream": True}))))
    answers = crowd.disperse()
    assert [answer.status for answer in answers] == [200] * MAX_QUEUED
    started = [event["request_id"].partition("-")[0] for event in witness.journal() if event["event"] == "start"]
    assert [one for one in started if one not in seen] == [answer.headers["x-request-id"] for answer in answers]


def test_choices_and_prompts_count_one_by_one(server: ServerProcess, crowd: Crowd) -> None:
    """A request that does not fit whole is refused whole."""
    crowd.join(completion(n=2))
    check_overloaded(exchange(server.port, post(COMPLETIONS, completion(n=2))))
    check_overloaded(exchange(server.port, post(COMPLETIONS, {"prompt": ["a", "b"], "max_tokens": 1})))
    crowd.join(completion())
    assert [answer.status for answer in crowd.disperse()] == [200, 200]


def test_prompt_tokens_are_bounded_too(server: ServerProcess, crowd: Crowd) -> None:
    """Few long prompts make as long a queue as many short ones."""
    crowd.join(completion(MAX_QUEUED_TOKENS - 10))
    check_overloaded(exchange(server.port, post(COMPLETIONS, completion(11))))
    crowd.join(completion(10))
    check_overloaded(exchange(server.port, post(COMPLETIONS, completion(1))))
    assert [answer.status for answer in crowd.disperse()] == [200, 200]


def test_a_refusal_says_what_waits(server: ServerProcess, crowd: Crowd) -> None:
    """The queue's length is that of sequences, of which a request may have several."""
    crowd.join(completion(n=2))
    answer = exchange(server.port, post(COMPLETIONS, completion(n=3)))
    check_overloaded(answer)
    assert "2 sequences are waiting" in answer.json()["error"]["message"]
    assert [answer.status for answer in crowd.disperse()] == [200]


def test_what_is_larger_than_the_queue_waits_where_nobody_does(server: ServerProcess, crowd: Crowd) -> None:
    """A busy server must not refuse for ever what the caps on a request allow."""
    crowd.join(completion(n=8))
    check_overloaded(exchange(server.port, post(COMPLETIONS, completion())))
    assert [answer.status for answer in crowd.disperse()] == [200]


def test_each_prompt_waits_by_itself(server: ServerProcess, witness: Witness) -> None:
    """The first token of one prompt does not make room for the tokens of those beside it."""
    with connect(server.port) as sock:
        two = {"prompt": [prompt(5), prompt(MAX_QUEUED_TOKENS - 10)], "max_tokens": 2, "stream": True}
        sock.sendall(post(COMPLETIONS, two | {"metadata": {"forebay_inter_token_ms": "60000"}}))
        read_until(sock, b"data: ")
        check_overloaded(exchange(server.port, post(COMPLETIONS, completion(11))))
        with connect(server.port) as other:
            other.sendall(post(COMPLETIONS, completion(10)))
            eventually(lambda: witness.load().waiting == 2)
    witness.wait_idle()


def test_idle_time_says_nothing_of_throughput(make_server: Callable[..., ServerProcess]) -> None:
    """Two answers and a pause are no measure of how fast a full queue will move."""
    server = make_server(
        FOREBAY_ENGINE="scripted", FOREBAY_MAX_NUM_SEQS="1", FOREBAY_MAX_QUEUED_REQUESTS=str(MAX_QUEUED)
    )
    for _ in range(2):
        assert exchange(server.port, post(COMPLETIONS, completion())).status == 200
    time.sleep(2)
    with ExitStack() as stack:
        held = post(COMPLETIONS, completion(max_tokens=2, stream=True, metadata={"forebay_inter_token_ms": "60000"}))
        holder = stack.enter_context(connect(server.port))
        holder.sendall(held)
        read_until(holder, b"data: ")
        for _ in range(MAX_QUEUED):
            stack.enter_context(connect(server.port)).sendall(held)
        refused = eventually(
            lambda: (answer := exchange(server.port, post(COMPLETIONS, completion(n=3)))).status == 503 and answer
        )
        assert refused.headers["retry-after"] == "1"


def test_an_idle_engine_refuses_nothing(server: ServerProcess, witness: Witness) -> None:
    """Bounds are on waiting: what finds the engine free is served, however large."""
    witness.wait_idle()
    assert exchange(server.port, post(COMPLETIONS, completion(10 * MAX_QUEUED_TOKENS, n=8))).status == 200
    witness.wait_idle()


def test_refusals_are_quick_and_leave_nothing(server: ServerProcess, crowd: Crowd, witness: Witness) -> None:
    """A hundred refusals cost the engine nothing, hold no place, and other routes answer meanwhile."""
    for _ in range(MAX_QUEUED):
        crowd.join(completion())
    before, seen = witness.load(), witness.seen()
    answers = [exchange(server.port, post(COMPLETIONS, completion())) for _ in range(100)]
    for answer in answers:
        check_overloaded(answer)
    assert exchange(server.port, head("GET", "/ready", "Host: x")).status == 200
    assert exchange(server.port, post("/tokenize", {"prompt": "a"})).status == 200
    eventually(lambda: witness.load().in_flight == before.in_flight)
    assert witness.seen() == seen
    refused = [witness.line(answer.headers["x-request-id"]) for answer in answers[-3:]]
    assert {(line["outcome"], line["error_code"]) for line in refused} == {("refused", "overloaded")}
    assert max(line["duration_ms"] for line in refused) < 1000
    assert [answer.status for answer in crowd.disperse()] == [200] * MAX_QUEUED


def test_places_come_back_from_those_who_left(server: ServerProcess, witness: Witness) -> None:
    """Clients that are gone as soon as they have asked, or a little later, leave the queue as they found it."""
    for number in range(40):
        with connect(server.port) as sock:
            body = completion(number % 10 + 1, max_tokens=100, stream=number % 2 == 0)
            sock.sendall(post(COMPLETIONS, body | {"metadata": {"forebay_inter_token_ms": "50"}}))
            if number % 3 == 0:
                time.sleep(0.01)
            (reset if number % 4 < 2 else finish)(sock)
    witness.wait_idle()
    with ExitStack() as stack:
        crowd = Crowd(server, witness, stack)
        for num_tokens in (MAX_QUEUED_TOKENS - 10, 5, 5):
            crowd.join(completion(num_tokens))
        check_overloaded(exchange(server.port, post(COMPLETIONS, completion())))
        assert [answer.status for answer in crowd.disperse()] == [200] * MAX_QUEUED
    witness.wait_idle()
    assert "internal_error" not in server.log


def test_no_header_and_no_field_overtakes(server: ServerProcess, crowd: Crowd, witness: Witness) -> None:
    """vLLM's server lets `X-Vllm-Priority` and `priority` jump the queue; here who came first is served first."""
    seen = witness.seen()
    crowd.join(completion())
    crowd.join(completion(), "X-Vllm-Priority: -100", "X-data-parallel-rank: 0", "X-Session-ID: a", "X-Request-Id: b")
    assert exchange(server.port, post(COMPLETIONS, completion(priority=-100))).status == 400
    first, second = crowd.disperse()
    started = [event["request_id"].partition("-")[0] for event in witness.journal() if event["event"] == "start"]
    first_id = first.headers["x-request-id"]
    assert next(one for one in started if one not in seen) == first_id
    assert second.headers["x-request-id"] == "b"
    assert "b" not in started
