"""Who began what others read goes: they have all of it, and he pays for what was generated."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from forebay.engines.scripted.tokenizer import encode_plain
from support.administrator import OWNER
from support.cached import CHAT, TEXT, Asker, cached_server, request_id_of, text_of, usage_of
from support.flights import LATE, NO_DRIFT, Leader, body, follow
from support.server import ServerProcess
from support.wire import connect, finish, post, read_until, reset
from support.witness import Witness

LAST = len(encode_plain(TEXT))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("flights")) as running:
        yield running


@pytest.mark.parametrize(
    ("num_tokens", "way"),
    [(0, finish), (1, reset), (12, finish), (LAST - 10, reset)],
    ids=["FIN0", "RST1", "FIN", "RST"],
)
def test_whoever_began_it_leaves(
    server: ServerProcess, asker: Asker, witness: Witness, question: str, num_tokens: int, way: Any
) -> None:
    """Before the first token, after it, in the middle, near the end: the others have all of it, generated once; he pays
    for all that was generated, at its price, and his row says that he had left."""
    leader = Leader(server, witness, question, metadata=LATE)
    with ThreadPoolExecutor(4) as pool:
        asked = follow(asker, question, 4, pool)
        leader.read(num_tokens)
        way(leader.sock)
        answers = [future.result() for future in asked]
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert {answer.headers["x-cache"] for answer in answers} == {"coalesced"}
    assert not any(witness.journal(request_id_of(answer)) for answer in answers)
    paid = asker.ledger.settled(leader.request_id)
    generated = witness.num_generated(leader.request_id)
    assert (paid["outcome"], paid["cache_kind"]) == ("client_gone", None)
    assert paid["completion_tokens"] == generated == usage_of(answers[0])["completion_tokens"]
    assert paid["cost"] == paid["prompt_tokens"] + 2 * generated
    assert asker.ledger.uncharged(leader.request_id) is None
    for answer in answers:
        row = asker.row(answer)
        assert (row["outcome"], row["cache_kind"], row["completion_tokens"]) == ("complete", "joined", generated)
    line = witness.line(leader.request_id)
    assert (line["outcome"], line["completion_tokens"]) == ("client_gone", generated)
    assert asker.outcome(question) == "hit"
    assert asker.drift() == NO_DRIFT


def test_the_last_one_to_leave_ends_it(server: ServerProcess, asker: Asker, witness: Witness, question: str) -> None:
    """Then the engine is told, and what it has generated is whose it was; the other pays for what he was handed."""
    slow = {"metadata": {"forebay_inter_token_ms": "5"}, "max_tokens": 4000, "ignore_eos": True}
    leader = Leader(server, witness, question, **slow)
    read_until(leader.sock, b'"content":"', count=4)
    with connect(server.port) as other:
        other.sendall(post(CHAT, body(question, **slow), f"Authorization: Bearer {OWNER}"))
        got = read_until(other, b'"content":"', count=8)
        finish(leader.sock)
        read_until(other, b'"content":"', count=8)
        assert not [event for event in witness.journal(leader.request_id) if event["event"] == "abort"]
    witness.wait_for(leader.request_id, "abort")
    paid = asker.ledger.settled(leader.request_id)
    assert paid["completion_tokens"] == witness.num_generated(leader.request_id) > 8
    (other_id,) = {got.partition(b'"id":"chatcmpl-')[2].partition(b'"')[0].decode()}
    row = asker.ledger.settled(other_id)
    assert (row["outcome"], row["cache_kind"]) == ("client_gone", "joined")
    assert 0 < row["completion_tokens"] <= paid["completion_tokens"]
    witness.wait_idle()
    assert asker.drift() == NO_DRIFT
    assert asker.outcome(question, **slow | {"max_tokens": 30}) == "miss"


def test_whoever_began_it_with_a_key_leaves(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """An `Idempotency-Key` changes nothing for the others; its request is told of once, when its work has ended."""
    with (
        cached_server(tmp_path_factory.mktemp("keyed"), FOREBAY_IDEMPOTENCY_GRACE_S="0") as server,
        closing(Asker(server)) as asker,
        closing(Witness(server)) as witness,
        ThreadPoolExecutor(1) as pool,
    ):
        leader = Leader(server, witness, "Keyed?", "Idempotency-Key: one", metadata=LATE)
        (later,) = follow(asker, "Keyed?", 1, pool)
        leader.read(5)
        reset(leader.sock)
        assert text_of(later.result()) == TEXT
        paid = asker.ledger.settled(leader.request_id)
        generated = witness.num_generated(leader.request_id)
        assert (paid["outcome"], paid["cache_kind"], paid["completion_tokens"]) == ("client_gone", None, generated)
        witness.line(leader.request_id)
        (line,) = [line for line in witness.lines() if line["request_id"] == leader.request_id]
        assert (line["outcome"], line["completion_tokens"]) == ("client_gone", generated)
        assert asker.drift() == NO_DRIFT


def test_whoever_began_it_runs_out_of_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """That is our failure: he pays for what he was handed, the rest is a row that nobody pays, once the engine has
    ended; who came later has a whole answer."""
    slow = {"forebay_script": TEXT, "forebay_first_token_ms": "300", "forebay_inter_token_ms": "38"}
    with (
        cached_server(tmp_path_factory.mktemp("late"), FOREBAY_REQUEST_TIMEOUT_S="3") as server,
        closing(Asker(server)) as asker,
        closing(Witness(server)) as witness,
        ThreadPoolExecutor(1) as pool,
    ):
        leader = Leader(server, witness, "Late?", metadata=slow)
        with closing(leader.sock):
            time.sleep(1.5)
            (later,) = follow(asker, "Late?", 1, pool)
            read_until(leader.sock, b"timeout")
        assert text_of(later.result()) == TEXT
        paid, free = asker.ledger.settled(leader.request_id), asker.ledger.uncharged(leader.request_id)
        generated = witness.num_generated(leader.request_id)
        assert (paid["outcome"], paid["cache_kind"]) == ("failed", None)
        assert free is not None
        assert 0 < paid["completion_tokens"] < generated
        assert paid["completion_tokens"] + free["completion_tokens"] == generated
        assert witness.line(leader.request_id)["outcome"] == "timeout"
        assert asker.drift() == NO_DRIFT
