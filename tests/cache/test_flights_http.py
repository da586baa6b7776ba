"""Single-flight over HTTP: the engine runs once, whoever began it pays, and everybody has a whole answer."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import Any

import httpx
import pytest

from forebay.engines.scripted.tokenizer import encode_plain
from support.administrator import OWNER, AdminClient
from support.cached import CHAT, TEXT, Asker, cached_server, request_id_of, text_of, usage_of
from support.server import ServerProcess
from support.wire import connect, eventually, finish, post, read_until, reset
from support.witness import Witness

_numbers = count()
SLOW = {"metadata": {"forebay_script": TEXT, "forebay_inter_token_ms": "5"}}
LATE = {"forebay_script": TEXT, "forebay_first_token_ms": "800", "forebay_inter_token_ms": "5"}
LAST = len(encode_plain(TEXT))
NO_DRIFT = {"prompt": 0, "generated": 0}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("flights")) as running:
        yield running


@pytest.fixture(scope="module")
def asker(server: ServerProcess) -> Iterator[Asker]:
    with closing(Asker(server)) as made:
        yield made


@pytest.fixture
def question() -> str:
    """One that nobody has asked before."""
    return f"Flight number {next(_numbers)}?"


def body(question: str, **fields: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 400}
    options = {"include_usage": True, "continuous_usage_stats": True}
    return {**asked, "stream": True, "stream_options": options, **fields}


class Leader:
    """Begins an answer over a socket of its own, to leave it."""

    def __init__(self, server: ServerProcess, witness: Witness, question: str, **fields: Any) -> None:
        seen = witness.seen()
        self.sock: socket.socket = connect(server.port)
        self.sock.sendall(post(CHAT, body(question, **fields), f"Authorization: Bearer {OWNER}"))
        self.request_id = witness.newest(seen)
        witness.wait_for(self.request_id, "start")

    def read(self, num_tokens: int) -> None:
        """At least so many."""
        got, num_read = b"", 0
        while num_read < num_tokens:
            piece = self.sock.recv(65536)
            assert piece
            got += piece
            num_read = max(map(int, re.findall(rb'"completion_tokens":(\d+)', got)), default=0)


def follow(
    asker: Asker, question: str, num: int, pool: ThreadPoolExecutor, **fields: Any
) -> list[Future[httpx.Response]]:
    """So many who read along; returns once they do."""
    kinds: list[dict[str, Any]] = [{}, WITH_USAGE]
    before = num_joined(asker)
    asked = [pool.submit(asker.ask, question, **kinds[i % 2], **fields) for i in range(num)]
    eventually(lambda: num_joined(asker) >= before + num)
    return asked


def num_joined(asker: Asker) -> int:
    (row,) = asker.ledger.query("SELECT count(*) AS n FROM entries WHERE cache_kind = 'joined' AND kind = 'reserve'")
    return int(row["n"])


def test_a_hundred_ask_and_the_engine_runs_once(asker: Asker, witness: Witness, question: str) -> None:
    """At a time: one row is paid at the price of generating, the others at that of the cache."""
    seen = witness.seen()
    answers = asker.ask_together(question, 100, **SLOW)
    assert {text_of(answer) for answer in answers} == {TEXT}
    assert len(witness.seen() - seen) == 1
    outcomes = [answer.headers["x-cache"] for answer in answers]
    assert outcomes.count("miss") == 1
    assert outcomes.count("coalesced") >= 50
    assert set(outcomes) <= {"miss", "coalesced", "hit"}
    rows = [asker.row(answer) for answer in answers]
    assert [row["cache_kind"] for row in rows].count(None) == 1
    assert {(row["prompt_tokens"], row["completion_tokens"]) for row in rows} == {
        (usage_of(answers[0])["prompt_tokens"], usage_of(answers[0])["completion_tokens"])
    }
    for row in rows:
        tokens = row["prompt_tokens"] + row["completion_tokens"]
        assert row["cost"] == (-(-tokens // 2) if row["cache_kind"] else tokens + row["completion_tokens"])
    assert asker.drift() == NO_DRIFT
    assert asker.ledger.num_open() == 0


@pytest.mark.parametrize("way", [finish, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("num_tokens", [0, 1, 12, LAST])
def test_whoever_began_it_leaves(
    server: ServerProcess, asker: Asker, witness: Witness, question: str, num_tokens: int, way: Any
) -> None:
    """Before the first token, after it, in the middle, before the end of sequence: the others have all of it, generated
    once; he pays for all that was generated, at its price, and his row says that he had left."""
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


@pytest.mark.parametrize("num_tokens", [0, 1, 12, LAST])
def test_what_fails_is_begun_again(asker: Asker, witness: Witness, question: str, num_tokens: int) -> None:
    """By one of those who read along, who then pays as one who generates; whoever began first pays for what he got as
    from the cache, and for what the engine did in vain nobody does."""
    failing = {**LATE, "forebay_fail": f"raise@{num_tokens}"}
    seen = witness.seen()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(asker.ask, question, metadata=failing, stream=True)
        leader_id = witness.newest(seen)
        asked = follow(asker, question, 4, pool, **SLOW)
        answers = [first.result(), *[future.result() for future in asked]]
    assert {text_of(answer) for answer in answers} == {TEXT}
    rows = {request_id_of(answer): asker.row(answer) for answer in answers}
    assert len(witness.seen() - seen) == 2
    (second_id,) = witness.seen() - seen - {leader_id}
    assert {row["outcome"] for row in rows.values()} == {"complete"}
    assert {request_id for request_id, row in rows.items() if row["cache_kind"] is None} == {second_id}
    assert rows[second_id]["completion_tokens"] == witness.num_generated(second_id)
    assert len({row["completion_tokens"] for row in rows.values()}) == 1
    uncharged = asker.ledger.uncharged(leader_id)
    num_lost = witness.num_generated(leader_id)
    assert num_lost == num_tokens
    assert uncharged is not None
    assert (uncharged["completion_tokens"], uncharged["cache_kind"], uncharged["cost"]) == (num_lost, None, 0)
    assert asker.drift() == NO_DRIFT
    assert not asker.ledger.faults()


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


def test_whoever_began_it_runs_out_of_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """That is our failure: he pays for what he was handed, the rest is a row that nobody pays, once the engine has
    ended; who came later has a whole answer."""
    slow = {"forebay_script": TEXT, "forebay_first_token_ms": "1500", "forebay_inter_token_ms": "20"}
    with (
        cached_server(tmp_path_factory.mktemp("late"), FOREBAY_REQUEST_TIMEOUT_S="2.5") as server,
        closing(Asker(server)) as asker,
        closing(Witness(server)) as witness,
        ThreadPoolExecutor(1) as pool,
    ):
        leader = Leader(server, witness, "Late?", metadata=slow)
        with closing(leader.sock):
            time.sleep(1.2)
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


def test_tenants_share_no_flight(server: ServerProcess, witness: Witness, question: str) -> None:
    """Each has one of its own."""
    seen = witness.seen()
    with AdminClient(server, OWNER) as owner:
        keys = [owner.make(tenant=tenant).key for tenant in ("east", "west")]
    with (
        closing(Asker(server, keys[0])) as one,
        closing(Asker(server, keys[1])) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        asked = [pool.submit(each.ask_together, question, 5, **SLOW) for each in (one, other)]
        for future in asked:
            assert {text_of(answer) for answer in future.result()} == {TEXT}
    assert len(witness.seen() - seen) == 2


def test_those_who_read_along_hold_no_place(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A server of one slot and one waiting place answers fifty that ask the same, and somebody else meanwhile."""
    env = {"FOREBAY_MAX_NUM_SEQS": "2", "FOREBAY_MAX_QUEUED_REQUESTS": "1", "FOREBAY_KEPT_FREE_SLOTS": "0"}
    with (
        cached_server(tmp_path_factory.mktemp("narrow"), **env) as narrow,
        closing(Asker(narrow)) as asker,
        closing(Witness(narrow)) as witness,
        ThreadPoolExecutor(20) as pool,
    ):
        slow = {"metadata": {"forebay_script": TEXT, "forebay_inter_token_ms": "20"}}
        first = pool.submit(asker.ask, "The same?", **slow)
        eventually(witness.seen)
        asked = []
        for _ in range(10):
            asked += follow(asker, "The same?", 1, pool)
        assert witness.load().running == 1
        assert text_of(asker.ask("Another?")) == TEXT
        assert asker.outcome("Another?") == "hit"
        assert not first.done()
        assert {text_of(future.result()) for future in (first, *asked)} == {TEXT}


def test_who_affords_less_is_by_himself(server: ServerProcess, asker: Asker, witness: Witness, question: str) -> None:
    """A budget shortens his answer, which others do not get, and their longer one is not his."""
    with AdminClient(server, OWNER) as owner:
        poor = owner.make(tenant="default", limits={"budgets": [{"amount": 40, "unit": "tokens", "window": "total"}]})
    open_end = {"max_tokens": None, **SLOW}
    seen = witness.seen()
    with closing(Asker(server, poor.key)) as poor_asker, ThreadPoolExecutor(2) as pool:
        rich = pool.submit(asker.ask, question, **open_end)
        eventually(lambda: witness.seen() - seen)
        short = poor_asker.ask(question, **open_end)
        assert rich.result().json()["choices"][0]["finish_reason"] == "stop"
    assert short.json()["choices"][0]["finish_reason"] == "length"
    assert short.headers["x-cache"] == "miss"
    assert poor_asker.row(short)["cache_kind"] is None
    assert usage_of(short)["total_tokens"] <= 40
    assert asker.drift() == NO_DRIFT
