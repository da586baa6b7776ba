"""The exact tier over HTTP: what is answered from it, what it costs, and who decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import openai
import pytest

from support.administrator import OWNER, AdminClient
from support.cached import CHAT, COMPLETIONS, TEXT, Asker, cached_server, request_id_of, text_of, usage_of
from support.door import check_refused
from support.server import ServerProcess
from support.sse import read_chunks
from support.witness import Witness

WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("hits"), FOREBAY_REASONING_FAMILY="qwen3") as running:
        yield running


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("first", [{}, WITH_USAGE], ids=["whole", "streamed"])
@pytest.mark.parametrize("second", [{}, WITH_USAGE], ids=["whole", "streamed"])
def test_the_same_again_is_answered_from_the_cache(
    asker: Asker, witness: Witness, question: str, path: str, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Whole or streamed, whichever way it was generated: the same text and usage, under an id of its own."""
    original = asker.ask(question, path=path, **first)
    again = asker.ask(question, path=path, **second)
    assert (original.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert text_of(original) == text_of(again) == TEXT
    assert usage_of(original) == usage_of(again)
    assert original.headers["x-cache-id"] == again.headers["x-cache-id"]
    assert 0 <= int(again.headers["age"]) <= 5
    assert "age" not in original.headers
    assert request_id_of(original) != request_id_of(again)
    assert not witness.journal(request_id_of(again))
    assert witness.line(request_id_of(again))["cache"] == "hit"
    assert witness.line(request_id_of(original))["cache"] == "miss"


def test_a_hit_is_a_row_of_its_own_kind_and_price(asker: Asker, question: str) -> None:
    """With the original's tokens; no engine did anything, and nothing drifts."""
    original, again = asker.ask(question), asker.ask(question, **WITH_USAGE)
    paid, hit = asker.row(original), asker.row(again)
    assert (paid["cache_kind"], hit["cache_kind"]) == (None, "exact")
    for column in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "finish_reason"):
        assert hit[column] == paid[column], column
    assert paid["cost"] == paid["prompt_tokens"] + 2 * paid["completion_tokens"]
    assert hit["cost"] == -(-(hit["prompt_tokens"] + hit["completion_tokens"]) // 2)
    assert (hit["outcome"], hit["prefill_us"], hit["decode_us"]) == ("complete", 0, 0)
    assert hit["completion_tokens"] == usage_of(again)["completion_tokens"] > 30
    assert asker.drift() == {"prompt": 0, "generated": 0}
    assert not asker.ledger.faults()


def test_the_sdk_reads_it(server: ServerProcess, question: str) -> None:
    """The official client, strict, sees nothing but an answer and its headers."""
    with openai.OpenAI(
        base_url=server.base_url, api_key=OWNER, max_retries=0, _strict_response_validation=True
    ) as client:
        texts = []
        for outcome in ("miss", "hit"):
            raw = client.chat.completions.with_raw_response.create(
                model="scripted", messages=[{"role": "user", "content": question}], temperature=0, max_tokens=2000
            )
            assert raw.headers["x-cache"] == outcome
            texts.append(raw.parse().choices[0].message.content)
        assert texts[0] == texts[1]
        stream = client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=2000,
            stream=True,
        )
        assert stream.response.headers["x-cache"] == "hit"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == texts[0]


def test_reasoning_is_replayed_as_reasoning(asker: Asker, question: str) -> None:
    """Apart from the answer, counted as it was."""
    script = {"metadata": {"forebay_script": "<think>Water runs down.</think>It runs down."}}
    answers = [
        asker.ask(question, **script),
        asker.ask(question, **script),
        asker.ask(question, **script, **WITH_USAGE),
    ]
    assert [answer.headers["x-cache"] for answer in answers] == ["miss", "hit", "hit"]
    original, whole, streamed = answers
    assert original.json()["choices"] == whole.json()["choices"]
    assert whole.json()["choices"][0]["message"]["reasoning"] == "Water runs down."
    deltas = [choice["delta"] for chunk in read_chunks(streamed) for choice in chunk["choices"]]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Water runs down."
    assert usage_of(original) == usage_of(whole) == usage_of(streamed)
    assert usage_of(whole)["completion_tokens_details"]["reasoning_tokens"] > 0


def test_spaces_around_a_question_do_not_count_and_all_else_does(asker: Asker, question: str) -> None:
    """What a client asks for must be the same; who asks and what he says of himself does not matter."""
    assert asker.outcome(question) == "miss"
    assert asker.outcome(f"  {question}\n") == "hit"
    assert asker.outcome(question, user="somebody") == "hit"
    assert asker.outcome(question.upper()) == "miss"
    assert asker.outcome(question, max_tokens=399) == "miss"
    assert asker.outcome(question, stop=["zebra"]) == "miss"
    earlier = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    assert asker.outcome(question, messages=earlier) == "miss"
    assert asker.outcome(question, messages=earlier) == "hit"
    assert asker.outcome(question, path=COMPLETIONS) == "miss"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"temperature": 1}, "chance"),
        ({"n": 2}, "choices"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"}]}, "question"),
        ({"path": COMPLETIONS, "prompt": ["one", "two"]}, "prompts"),
        ({"path": COMPLETIONS, "prompt": [1, 2, 3]}, "question"),
    ],
)
def test_what_is_never_cached(asker: Asker, question: str, fields: dict[str, Any], reason: str) -> None:
    """The answer says why it was not looked up; twice the same is generated twice."""
    for _ in range(2):
        answer = asker.ask(question, **fields)
        assert answer.status_code == 200, answer.text
        assert (answer.headers["x-cache"], answer.headers["x-cache-reason"]) == ("bypass", reason)
        assert asker.row(answer)["cache_kind"] is None


def test_what_was_cut_short_is_not_stored(asker: Asker, question: str) -> None:
    """It ended at its limit."""
    assert [asker.outcome(question, max_tokens=7) for _ in range(2)] == ["miss", "miss"]


def test_a_request_narrows_what_it_gets(asker: Asker, question: str) -> None:
    """By `Cache-Control`, or `x-cache-control` where a proxy between would heed the other."""
    no_store, no_cache = {"cache-control": "no-store"}, {"x-cache-control": "no-cache"}
    assert asker.outcome(question, headers=no_store) == "miss"
    assert asker.outcome(question, headers={"x-cache-control": "off"}) == "bypass"
    assert asker.outcome(question, headers=no_cache) == "bypass"
    assert asker.outcome(question) == "hit"
    assert asker.outcome(question, headers=no_store) == "hit"
    assert asker.outcome(question, headers={"cache-control": "max-age=3600"}) == "hit"
    assert asker.outcome(question, headers={"cache-control": "max-age=0"}) == "bypass"
    assert asker.outcome(question, headers={"cache-control": "only-if-cached"}) == "hit"
    check_refused(asker.ask(question, headers={"x-cache-control": "whatever"}), "x-cache-control")


def test_an_answer_that_must_be_stored_and_is_not(asker: Asker, witness: Witness, question: str) -> None:
    """RFC 9111, 5.2.1.7: 504, which the SDKs are told not to repeat; nothing is generated or written down."""
    seen, num_admitted = witness.seen(), asker.ledger.num_admitted()
    for fields in ({}, {"temperature": 1}):
        refused = asker.ask(question, headers={"cache-control": "only-if-cached"}, **fields)
        assert refused.status_code == 504
        assert refused.json()["error"]["code"] == "not_cached"
        assert refused.headers["x-should-retry"] == "false"
    assert witness.seen() == seen
    assert asker.ledger.num_admitted() == num_admitted


def test_a_keys_policy_decides(server: ServerProcess, question: str) -> None:
    """`off` gets none; a key may take stored answers also where a new one would be drawn by chance."""
    with AdminClient(server, OWNER) as owner:
        made = {
            policy: owner.make(tenant="acme", cache_policy=policy, cache_any_temperature=anything)
            for policy, anything in (("default", False), ("exact", True), ("off", True))
        }
    with (
        closing(Asker(server, made["default"].key)) as plain,
        closing(Asker(server, made["exact"].key)) as lenient,
        closing(Asker(server, made["off"].key)) as without,
    ):
        assert [plain.outcome(question), lenient.outcome(question)] == ["miss", "hit"]
        refused = without.ask(question)
        assert (refused.headers["x-cache"], refused.headers["x-cache-reason"]) == ("bypass", "off")
        chance = {"temperature": 1, "max_tokens": 350}
        assert [lenient.outcome(question, **chance) for _ in range(2)] == ["miss", "hit"]
        assert plain.outcome(question, **chance) == "bypass"
        assert [plain.outcome(question, seed=5, **chance) for _ in range(2)] == ["miss", "hit"]


def test_tenants_do_not_meet(server: ServerProcess, question: str) -> None:
    """In pairs: the same tenant's other key hits where another tenant's misses; neither sees the other's ids."""
    with AdminClient(server, OWNER) as owner:
        keys = [owner.make(tenant=tenant).key for tenant in ("north", "north", "south")]
    with (
        closing(Asker(server, keys[0])) as one,
        closing(Asker(server, keys[1])) as same,
        closing(Asker(server, keys[2])) as other,
    ):
        for number in range(5):
            asked = f"{question} {number}"
            answers = [one.ask(asked), other.ask(asked), same.ask(asked), other.ask(asked)]
            assert [answer.headers["x-cache"] for answer in answers] == ["miss", "miss", "hit", "hit"]
            assert answers[0].headers["x-cache-id"] != answers[1].headers["x-cache-id"]


def test_limits_and_budgets_count_a_hit(server: ServerProcess, question: str) -> None:
    """As a request and with its tokens; where they do not suffice it is refused like any other."""
    with AdminClient(server, OWNER) as owner:
        budget = {"amount": 300, "unit": "tokens", "window": "total"}
        made = owner.make(tenant="thrifty", limits={"budgets": [budget], "requests_per_minute": 100})
    with closing(Asker(server, made.key)) as asker:
        used = []
        for _ in range(20):
            answer = asker.ask(question, max_tokens=150)
            if answer.status_code != 200:
                break
            used.append(usage_of(answer)["total_tokens"])
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"
        assert len(used) >= 2
        assert sum(used) <= 300
        assert 300 - sum(used) < used[0]
        assert int(answer.headers.get("x-ratelimit-remaining-requests", "0")) <= 100


def test_an_idempotency_key_goes_first(asker: Asker, question: str) -> None:
    """A keyed replay is no hit, and no row; another key's same question is a hit, whose replay is none again."""
    first = asker.ask(question, headers={"idempotency-key": f"{question} one"})
    replay = asker.ask(question, headers={"idempotency-key": f"{question} one"})
    assert first.headers["x-cache"] == "miss"
    assert replay.headers["idempotent-replayed"] == "true"
    assert "x-cache" not in replay.headers
    assert replay.content == first.content
    hit = asker.ask(question, headers={"idempotency-key": f"{question} two"})
    assert hit.headers["x-cache"] == "hit"
    again = asker.ask(question, headers={"idempotency-key": f"{question} two"})
    assert again.content == hit.content
    assert asker.row(hit)["cache_kind"] == "exact"
    assert asker.drift() == {"prompt": 0, "generated": 0}
