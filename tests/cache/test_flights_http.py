"""Single-flight over HTTP: the engine runs once, and what fails is begun again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from forebay.engines.scripted.tokenizer import encode_plain
from support.administrator import OWNER, AdminClient
from support.cached import TEXT, Asker, cached_server, request_id_of, text_of, usage_of
from support.flights import LATE, NO_DRIFT, follow
from support.server import ServerProcess
from support.wire import eventually
from support.witness import Witness

SLOW = {"metadata": {"forebay_script": TEXT, "forebay_inter_token_ms": "5"}}
LAST = len(encode_plain(TEXT))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("flights")) as running:
        yield running


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


def test_a_stream_reads_along_token_by_token(asker: Asker, witness: Witness, question: str) -> None:
    """Also where the answer was begun for one who wants it whole."""
    seen = witness.seen()
    with ThreadPoolExecutor(2) as pool:
        whole = pool.submit(asker.ask, question, metadata={**LATE, "forebay_inter_token_ms": "10"})
        witness.wait_for(witness.newest(seen), "start")
        streamed = asker.ask(question, stream=True, metadata={**LATE, "forebay_inter_token_ms": "10"})
        assert text_of(whole.result()) == text_of(streamed) == TEXT
    assert len(witness.seen() - seen) == 1
    assert streamed.content.count(b"data: ") > LAST / 2


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
