"""What the ledger says of a request, however it ended: client, engine and ledger tell the same story."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from support.ledger import LedgerFile
from support.server import ServerProcess, journalled_server
from support.wire import connect, eventually, finish, post, read_until
from support.witness import Witness

PRICES = {
    "version": "2026-11",
    "models": {"scripted": {"prompt": 1_000_000, "cached": 250_000, "completion": 3_000_000, "reasoning": 5_000_000}},
}
"""1, 0.25, 3 and 5 micro-units a token."""

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A journal, prices, and 3 s for a request."""
    folder = tmp_path_factory.mktemp("accounts")
    (folder / "prices.json").write_text(json.dumps(PRICES), encoding="utf-8")
    with journalled_server(
        folder, FOREBAY_PRICES_FILE=str(folder / "prices.json"), FOREBAY_REQUEST_TIMEOUT_S="3"
    ) as running:
        yield running


@pytest.fixture(scope="module")
def ledger(server: ServerProcess) -> LedgerFile:
    return LedgerFile(server.data_dir)


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as made:
        yield made


def body(**more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "count"}], "max_tokens": 30, **more}


def test_a_whole_answer_is_billed_as_its_usage_says(client: openai.OpenAI, ledger: LedgerFile) -> None:
    """Tokens, money, who asked and what the client said about itself; reserved was the most that it could come to."""
    answer = client.chat.completions.create(
        **body(user="u-17", metadata={"team": "red"}, extra_body={"ignore_eos": True}),
        extra_headers={"x-request-id": "mine-1"},
    )
    assert answer.usage is not None
    row = ledger.settled(answer.id.partition("-")[2])
    assert answer.usage.completion_tokens == row["completion_tokens"] == 30
    assert answer.usage.prompt_tokens == row["prompt_tokens"]
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == row["cached_tokens"]
    cached = row["cached_tokens"]
    assert row["cost"] == -(-((row["prompt_tokens"] - cached) * 1_000_000 + cached * 250_000) // 1_000_000) + 30 * 3
    assert row["price_version"] == "2026-11"
    assert (row["tenant"], row["key_id"], row["user_id"]) == ("default", "anonymous", "u-17")
    assert (row["outcome"], row["finish_reason"], row["streamed"], row["route"]) == ("complete", "length", 0, CHAT)
    assert (row["client_request_id"], row["retry_count"], row["recovered"]) == ("mine-1", 0, 0)
    assert json.loads(row["metadata"]) == {"team": "red"}
    assert row["decode_us"] + row["prefill_us"] + row["queue_us"] >= 0
    assert row["reserved_tokens"] == row["prompt_tokens"] + 30
    # A reservation does not know yet which tokens will be reasoning, so it holds their price.
    assert row["reserved_cost"] == row["prompt_tokens"] + 30 * 5


def test_a_stream_is_billed_as_its_usage_says(client: openai.OpenAI, ledger: LedgerFile) -> None:
    """Long enough for several checkpoints; nothing of it is left open."""
    with client.chat.completions.create(
        **body(max_tokens=300, stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
    ) as stream:
        *_, last = stream
    assert last.usage is not None
    row = ledger.settled(last.id.partition("-")[2])
    assert row["completion_tokens"] == last.usage.completion_tokens == 300
    assert (row["outcome"], row["streamed"]) == ("complete", 1)
    assert ledger.query("SELECT * FROM open_requests WHERE request_id = ?", row["request_id"]) == []


def test_every_choice_of_every_prompt_counts_and_a_prompt_once(client: openai.OpenAI, ledger: LedgerFile) -> None:
    """Two prompts with three choices each."""
    answer = client.completions.create(
        model="scripted", prompt=["one two", "three"], n=3, max_tokens=5, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    row = ledger.settled(answer.id.partition("-")[2])
    assert row["completion_tokens"] == answer.usage.completion_tokens == 2 * 3 * 5
    assert row["prompt_tokens"] == answer.usage.prompt_tokens


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answer"])
def test_a_client_that_leaves_pays_for_what_was_generated(
    server: ServerProcess, witness: Witness, ledger: LedgerFile, stream: bool
) -> None:
    """To the token, as the engine's journal has it."""
    seen = witness.seen()
    asked = body(stream=stream, max_tokens=3000, ignore_eos=True, metadata={"forebay_inter_token_ms": "2"})
    with connect(server.port) as sock:
        sock.sendall(post(CHAT, asked))
        request_id = witness.newest(seen)
        if stream:
            read_until(sock, b'"content":"')
        witness.wait_for(request_id, "tokens", count=20)
        finish(sock)
    witness.wait_for(request_id, "abort")
    row = ledger.settled(request_id)
    assert row["outcome"] == "client_gone"
    assert row["completion_tokens"] == witness.num_generated(request_id) >= 20
    assert ledger.uncharged(request_id) is None


def test_an_answer_that_failed_is_not_billed(server: ServerProcess, witness: Witness, ledger: LedgerFile) -> None:
    """The engine fails after 7 tokens: the client gets an error and pays nothing; what was done is a row all the
    same."""
    seen = witness.seen()
    answer = httpx.post(server.url + CHAT, json=body(metadata={"forebay_fail": "raise@7"}))
    assert answer.status_code >= 500
    request_id = witness.newest(seen)
    row = ledger.settled(request_id)
    assert (row["outcome"], row["prompt_tokens"], row["completion_tokens"], row["cost"]) == ("failed", 0, 0, 0)
    free = ledger.uncharged(request_id)
    assert free is not None
    assert free["completion_tokens"] == witness.num_generated(request_id) == 7
    assert free["prompt_tokens"] > 0
    assert free["cost"] == 0


def test_a_stream_that_failed_is_billed_as_far_as_it_came(
    server: ServerProcess, witness: Witness, ledger: LedgerFile
) -> None:
    """What the client has, it pays for; the rest is ours."""
    seen = witness.seen()
    asked = body(
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
        metadata={"forebay_fail": "raise@25", "forebay_inter_token_ms": "2"},
    )
    answer = httpx.post(server.url + CHAT, json=asked)
    delivered = [
        json.loads(line.removeprefix("data: ")).get("usage", {}).get("completion_tokens", 0)
        for line in answer.text.splitlines()
        if line.startswith("data: {")
    ]
    request_id = witness.newest(seen)
    row = ledger.settled(request_id)
    free = ledger.uncharged(request_id)
    assert row["outcome"] == "failed"
    assert row["completion_tokens"] == max(delivered) > 0
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] + (free or {"completion_tokens": 0})["completion_tokens"] == 25


def test_prompts_that_the_engine_never_had_are_not_billed(make_server: Callable[..., ServerProcess]) -> None:
    """One slot: the stream of two prompts fails while the second one waits for its turn."""
    server = make_server("--engine", "scripted", "--max-num-seqs", "1")
    asked = {
        "prompt": ["one", "two two two two two"],
        "max_tokens": 30,
        "stream": True,
        "metadata": {"forebay_fail": "raise@9", "forebay_inter_token_ms": "1"},
    }
    answer = httpx.post(server.url + "/v1/completions", json=asked)
    assert '"error"' in answer.text
    ledger = LedgerFile(server.data_dir)
    (row,) = eventually(lambda: ledger.rows("settle"))
    assert row["outcome"] == "failed"
    assert row["prompt_tokens"] == 3
    free = ledger.uncharged(row["request_id"])
    assert free is None or min(free["prompt_tokens"], free["completion_tokens"]) >= 0


def test_a_request_that_ran_out_of_time_is_not_billed(
    server: ServerProcess, witness: Witness, ledger: LedgerFile
) -> None:
    """The time was ours to keep."""
    seen = witness.seen()
    asked = body(max_tokens=3000, ignore_eos=True, metadata={"forebay_inter_token_ms": "5"})
    answer = httpx.post(server.url + CHAT, json=asked, timeout=20)
    assert answer.status_code == 504
    request_id = witness.newest(seen)
    row = ledger.settled(request_id)
    assert (row["outcome"], row["completion_tokens"]) == ("failed", 0)
    free = ledger.uncharged(request_id)
    assert free is not None
    assert free["completion_tokens"] == witness.num_generated(request_id) > 100


def test_what_is_refused_is_in_no_ledger(server: ServerProcess, ledger: LedgerFile) -> None:
    """Bad input reserves nothing."""
    before = ledger.query("SELECT max(seq) AS seq FROM entries")
    assert httpx.post(server.url + CHAT, json=body(temperature=9)).status_code == 400
    assert httpx.post(server.url + CHAT, json=body(max_tokens=10**6)).status_code == 400
    assert ledger.query("SELECT max(seq) AS seq FROM entries") == before


def test_the_sdks_retries_are_told_apart(server: ServerProcess, client: openai.OpenAI, ledger: LedgerFile) -> None:
    """The number of the attempt is in the row."""
    answer = client.chat.completions.create(**body(), extra_headers={"x-stainless-retry-count": "2"})
    assert ledger.settled(answer.id.partition("-")[2])["retry_count"] == 2


def test_the_ledger_is_whole_and_agrees_with_the_metrics(
    server: ServerProcess, witness: Witness, ledger: LedgerFile
) -> None:
    """After all of the above: each row follows from the one before, sums are right, /metrics counts the same tokens."""
    witness.wait_idle()
    eventually(lambda: ledger.num_open() == 0)
    assert ledger.faults() == []
    (sums,) = ledger.query(
        "SELECT sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion FROM entries WHERE kind = 'settle'"
    )
    for kind, total in sums.items():
        assert witness.value(rf'forebay_tokens_total\{{kind="{kind}"\}}') == total


def test_files_are_the_owners_alone(server: ServerProcess) -> None:
    """Ledger, log of it, secret and lock hold what nobody else is to read."""
    assert server.data_dir.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in server.data_dir.iterdir()}
    assert len(modes) >= 4
    assert set(modes.values()) == {0o600}, modes
