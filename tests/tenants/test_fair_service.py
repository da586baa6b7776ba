"""A key whose long jobs fill the engine and the queue, and what others notice of it, through the door."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support.administrator import OWNER, AdminClient, Made
from support.server import ServerProcess, journalled_server
from support.wire import Answer, connect, eventually, exchange, post, read_answer, read_until
from support.witness import Witness

COMPLETIONS = "/v1/completions"
NUM_SLOTS, NUM_KEPT, MAX_QUEUED = 16, 1, 64
MAX_QUEUED_TOKENS = 1000
ENDLESS = {"max_tokens": 9, "metadata": {"forebay_inter_token_ms": "60000"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with journalled_server(
        tmp_path_factory.mktemp("fair"),
        FOREBAY_API_KEYS=OWNER,
        FOREBAY_MAX_NUM_SEQS=str(NUM_SLOTS),
        FOREBAY_MAX_QUEUED_REQUESTS=str(MAX_QUEUED),
        FOREBAY_MAX_QUEUED_TOKENS=str(MAX_QUEUED_TOKENS),
        FOREBAY_SSE_PING_S="0.2",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def admin(server: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(server, OWNER) as client:
        yield client


class Asker:
    """Asks with one key, over a connection a request."""

    def __init__(self, server: ServerProcess, key: Made, stack: ExitStack) -> None:
        self._port, self._key, self._stack = server.port, key, stack
        self.sockets: list[socket.socket] = []

    def message(self, **fields: Any) -> bytes:
        body = {"prompt": [104], "max_tokens": 1} | fields
        return post(COMPLETIONS, body, f"Authorization: Bearer {self._key.key}")

    def ask(self, **fields: Any) -> socket.socket:
        sock = self._stack.enter_context(connect(self._port))
        sock.sendall(self.message(**fields))
        self.sockets.append(sock)
        return sock

    def answer(self, **fields: Any) -> Answer:
        return exchange(self._port, self.message(**fields))

    def leave(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def stack(witness: Witness) -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered
    witness.wait_idle()


@pytest.fixture
def hog(server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack) -> Asker:
    """Runs all it may, and has 20 jobs waiting."""
    asker = Asker(server, admin.make(), stack)
    for _ in range(NUM_SLOTS - NUM_KEPT + 20):
        asker.ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS - NUM_KEPT, waiting=20)
    return asker


def wait_until(witness: Witness, *, running: int, waiting: int) -> None:
    eventually(lambda: (load := witness.load()).running == running and load.waiting == waiting)


def test_anothers_chat_starts_at_once(server: ServerProcess, admin: AdminClient, stack: ExitStack, hog: Asker) -> None:
    """One after another, on the slot that is kept; the hog's own next request does not."""
    chat = Asker(server, admin.make(), stack)
    assert [chat.answer().status for _ in range(5)] == [200] * 5
    late = hog.ask(stream=True)
    assert b"data: " not in read_until(late, b": keep-alive")


def test_who_waits_in_the_queue_hears_that_he_does(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack, hog: Asker
) -> None:
    """Comments come as from the engine's own queue, the wait is in the log line and in /metrics, and then the
    answer."""
    chat = Asker(server, admin.make(), stack)
    first = chat.ask(stream=True, **ENDLESS)
    read_until(first, b"data: ")
    second = chat.ask(stream=True)
    head = read_until(second, b": keep-alive", count=2)
    wait_until(witness, running=NUM_SLOTS, waiting=21)
    hog.leave()
    read_until(second, b"data: [DONE]")
    request_id = head.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()
    assert witness.line(request_id)["queue_ms"] >= 350


def test_what_is_wrong_is_refused_before_it_waits(hog: Asker) -> None:
    """Nobody waits in a queue to be told that a field is wrong."""
    assert hog.answer(metadata={"forebay_fail": "?"}).status == 400


def test_a_queue_is_never_one_keys_alone(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack, hog: Asker
) -> None:
    """A key that fills it is refused while there is room for others: it may hold eight times what is free."""
    for _ in range(MAX_QUEUED):
        hog.ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS - NUM_KEPT, waiting=58)
    check_refused(hog.answer(), 503, "what is left is for others")
    others = [Asker(server, admin.make(), stack) for _ in range(3)]
    for other in others:
        other.ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS, waiting=60)


def test_nor_are_the_tokens_that_may_wait(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack, hog: Asker
) -> None:
    """The same of prompts: few long ones fill a queue as many short ones do."""
    hog.ask(stream=True, prompt=[104] * (MAX_QUEUED_TOKENS - 100), **ENDLESS)
    wait_until(witness, running=NUM_SLOTS - NUM_KEPT, waiting=21)
    check_refused(hog.answer(), 503, "prompt tokens are waiting")
    assert Asker(server, admin.make(), stack).answer(prompt=[104] * 20).status == 200


def test_a_policy_names_the_share_of_the_queue(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack, hog: Asker
) -> None:
    """Of places and of tokens; beyond it is 429, which tells whose share it is, and others are not concerned."""
    share = {"limits": {"queue_share": 0.125}}
    small = Asker(server, admin.make(**share), stack)
    for _ in range(1 + MAX_QUEUED // 8):
        small.ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS, waiting=28)
    check_refused(small.answer(), 429, "This key's share of the queue is full: 8 of its sequences are waiting")
    long = Asker(server, admin.make(**share), stack)
    long.ask(stream=True, prompt=[104] * 100, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS, waiting=29)
    check_refused(long.answer(prompt=[104] * 26), 429, "100 of its prompt tokens are waiting")
    Asker(server, admin.make(), stack).ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS, waiting=30)


def test_a_tenants_keys_share_its_share(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack, hog: Asker
) -> None:
    """More keys are not more places."""
    admin.get("PUT", "/tenants/crowded", {"limits": {"queue_share": 0.0625}})
    keys = [Asker(server, admin.make(tenant="crowded"), stack) for _ in range(5)]
    for key in keys:
        key.ask(stream=True, **ENDLESS)
    wait_until(witness, running=NUM_SLOTS, waiting=24)
    check_refused(keys[0].answer(), 429, "This tenant's share of the queue is full")


def check_refused(answer: Answer, status: int, why: str) -> None:
    error = answer.json()["error"]
    assert (answer.status, error["code"]) == (status, {503: "overloaded", 429: "rate_limit_exceeded"}[status])
    assert why in error["message"]
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_batch_keys_wait_for_chats(
    server: ServerProcess, admin: AdminClient, witness: Witness, stack: ExitStack
) -> None:
    """By the class of a key: what runs first when a slot comes free, and the place in the engine's own queue."""
    batch, chats = (Asker(server, admin.make(priority=name), stack) for name in ("batch", "interactive"))
    holders = [batch.ask(stream=True, **ENDLESS) for _ in range(NUM_SLOTS - NUM_KEPT)]
    wait_until(witness, running=NUM_SLOTS - NUM_KEPT, waiting=0)
    holders.append(chats.ask(stream=True, **ENDLESS))
    wait_until(witness, running=NUM_SLOTS, waiting=0)
    seen = witness.seen()
    last, first = batch.ask(), chats.ask()
    wait_until(witness, running=NUM_SLOTS, waiting=2)
    holders[-1].close()
    read_answer(first)
    assert len(witness.seen() - seen) == 1
    holders[0].close()
    read_answer(last)
