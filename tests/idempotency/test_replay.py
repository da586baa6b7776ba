"""The same key with the same body: one generation, one bill, the same bytes again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI, UnprocessableEntityError

from support.administrator import AdminClient, Made
from support.keyed import CHAT, COMPLETIONS, GENERATE, Books, keyed, new_key, question, request_id_of
from support.server import ServerProcess
from support.witness import Witness

ROUTES = [(CHAT, True), (CHAT, False), (COMPLETIONS, True), (COMPLETIONS, False), (GENERATE, False)]


@pytest.mark.parametrize(("path", "stream"), ROUTES)
def test_the_same_bytes_again(client: httpx.Client, books: Books, path: str, stream: bool) -> None:
    """Status, type and every byte, usage and `[DONE]` included; the replay says that it is one. Nothing is generated or
    billed for it."""
    key, body = new_key(), question(path, stream=stream, **({} if path == GENERATE else {"n": 2}))
    first, *again = (client.post(path, json=body, headers=keyed(key)) for _ in range(3))
    assert first.status_code == 200
    assert "idempotent-replayed" not in first.headers
    for answer in again:
        assert (answer.status_code, answer.content) == (200, first.content)
        assert answer.headers["content-type"] == first.headers["content-type"]
        assert answer.headers["idempotent-replayed"] == "true"
        assert answer.headers["x-request-id"] != first.headers["x-request-id"]
    assert not stream or first.content.endswith(b"data: [DONE]\n\n")
    assert books.settlement()["outcome"] == "complete"


def test_without_a_key_every_request_is_one_of_its_own(client: httpx.Client, books: Books) -> None:
    """Nothing is matched that did not ask for it."""
    first, second = (client.post(CHAT, json=question(CHAT)) for _ in range(2))
    assert first.json()["id"] != second.json()["id"]
    assert books.outcomes() == ["complete", "complete"]


def test_a_body_counts_by_what_it_says(client: httpx.Client, books: Books) -> None:
    """Spaces and the order of members are not part of it: not every client writes the same JSON twice."""
    key, body = new_key(), question(CHAT)
    headers = keyed(key) | {"content-type": "application/json"}
    first = client.post(CHAT, content=json.dumps(body), headers=headers)
    again = client.post(CHAT, content=json.dumps(dict(reversed(body.items())), indent=2), headers=headers)
    assert (again.status_code, again.content) == (200, first.content)
    assert len(books.started()) == 1


@pytest.mark.parametrize("change", [{"max_tokens": 13}, {"stream": True}, {"user": "somebody"}])
def test_another_body_is_refused(client: httpx.Client, books: Books, change: dict[str, Any]) -> None:
    """422, not to be retried, and the key still gives the first body's answer."""
    key, body = new_key(), question(CHAT)
    first = client.post(CHAT, json=body, headers=keyed(key))
    refused = client.post(CHAT, json=body | change, headers=keyed(key))
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "idempotency_conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert client.post(CHAT, json=body, headers=keyed(key)).content == first.content
    assert len(books.started()) == 1


def test_another_body_is_refused_while_the_first_is_answered(client: httpx.Client, books: Books) -> None:
    """The key is taken from the first moment on."""
    key, body = new_key(), question(CHAT, stream=True, num_tokens=40, ms=5)
    with client.stream("POST", CHAT, json=body, headers=keyed(key)) as answer:
        refused = client.post(CHAT, json=question(CHAT), headers=keyed(key))
        assert refused.status_code == 422
        answer.read()
    assert len(books.started()) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "caf\u00e9", "tab\tulator"])
def test_a_key_that_is_none(client: httpx.Client, books: Books, key: str) -> None:
    """1 to 255 printable ASCII characters."""
    answer = client.post(CHAT, json=question(CHAT), headers={b"idempotency-key": key.encode("latin-1")})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert books.started() == set()


def test_two_keys_are_no_key(client: httpx.Client) -> None:
    """Which of the headers would count is anybody's guess."""
    headers = [("idempotency-key", "one"), ("idempotency-key", "two")]
    assert client.post(CHAT, json=question(CHAT), headers=headers).status_code == 400


def test_a_key_is_its_tenants(client: httpx.Client, admin: AdminClient, mine: Made, books: Books) -> None:
    """Two tenants, two routes or two users of a gateway use the same key without meeting; two keys of a tenant meet."""
    key, body = new_key(), question(CHAT)
    colleague, stranger = admin.make(tenant="ours"), admin.make(tenant="theirs")
    answers = {
        who: client.post(path, json=question(path), headers=keyed(key) | headers).content
        for who, path, headers in (
            ("mine", CHAT, mine.headers),
            ("colleague's", CHAT, colleague.headers),
            ("stranger's", CHAT, stranger.headers),
            ("a user's", CHAT, mine.headers | {"x-user-id": "u-1"}),
            ("of another route", COMPLETIONS, mine.headers),
        )
    }
    assert answers.pop("mine") == answers.pop("colleague's")
    assert len({request_id_of(answer) for answer in answers.values()}) == 3
    assert books.outcomes() == ["complete"] * 4
    assert client.post(CHAT, json=body, headers=keyed(key) | stranger.headers).content == answers["stranger's"]


def test_a_key_gives_no_model_that_its_caller_may_not_use(client: httpx.Client, admin: AdminClient) -> None:
    """Another key of the tenant is asked for its own rights, as for a request of its own."""
    key, body = new_key(), question(CHAT, model="alpha")
    assert client.post(CHAT, json=body, headers=keyed(key)).status_code == 200
    narrow = admin.make(tenant="ours", models=["beta"])
    refused = client.post(CHAT, json=body, headers=keyed(key) | narrow.headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")


def test_a_replay_is_within_every_limit(client: httpx.Client, admin: AdminClient) -> None:
    """It costs nothing, so a key that may ask nothing more may still have its answers again."""
    budget = {"amount": 40, "unit": "tokens", "window": "total"}
    poor = admin.make(tenant="ours", limits={"requests_per_minute": 1, "budgets": [budget]})
    headers = keyed(new_key()) | poor.headers
    first = client.post(CHAT, json=question(CHAT), headers=headers)
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert client.post(CHAT, json=question(CHAT), headers=poor.headers).status_code == 429
    for _ in range(3):
        assert client.post(CHAT, json=question(CHAT), headers=headers).content == first.content


def test_ignored_fields_are_listed_again(client: httpx.Client, admin: AdminClient) -> None:
    """A replay has the answer's own headers."""
    lenient = admin.make(tenant="ours", strict=False)
    body, headers = question(CHAT, surprise=1), keyed(new_key()) | lenient.headers
    first, again = (client.post(CHAT, json=body, headers=headers) for _ in range(2))
    assert first.headers["x-ignored-params"] == again.headers["x-ignored-params"] == "surprise"
    assert again.headers["idempotent-replayed"] == "true"


def test_a_replay_is_logged_and_counted_as_one(client: httpx.Client, witness: Witness) -> None:
    """Its line names the request whose answer it was; its tokens are nobody's."""
    headers, body = keyed(new_key()), question(CHAT)
    replays, tokens = "forebay_replays_total", r"forebay_tokens_total\{.*\}"
    first = client.post(CHAT, json=body, headers=headers)
    assert witness.line(request_id_of(first.content))["completion_tokens"] == 12
    before = witness.value(replays), witness.value(tokens)
    again = client.post(CHAT, json=body, headers=headers)
    line = witness.line(again.headers["x-request-id"])
    assert line["replay_of"] == request_id_of(first.content)
    assert (line["status"], line["outcome"], line["model"], line["stream"]) == (200, "ok", "alpha", False)
    assert "completion_tokens" not in line
    assert (witness.value(replays), witness.value(tokens)) == (before[0] + 1, before[1])


def test_the_official_client(server: ServerProcess, mine: Made, books: Books) -> None:
    """Replays satisfy its types; a conflict is its own error, raised at once and not tried again."""
    with OpenAI(base_url=server.base_url, api_key=mine.key, _strict_response_validation=True) as sdk:
        asked: dict[str, Any] = {"model": "alpha", "messages": [{"role": "user", "content": "go"}], "max_tokens": 9}
        key, other = keyed(new_key()), keyed(new_key())
        whole = [sdk.chat.completions.create(**asked, extra_headers=key) for _ in range(2)]
        assert whole[0] == whole[1]
        streams = [list(sdk.chat.completions.create(**asked, stream=True, extra_headers=other)) for _ in range(2)]
        assert streams[0] == streams[1]
        with pytest.raises(UnprocessableEntityError):
            sdk.chat.completions.create(**asked | {"max_tokens": 8}, extra_headers=key)
    assert books.outcomes() == ["complete", "complete"]


async def test_the_official_client_comes_back_by_itself(server: ServerProcess, mine: Made, books: Books) -> None:
    """Its time runs out, it asks again with the same key, and finds what it has paid for."""
    async with AsyncOpenAI(base_url=server.base_url, api_key=mine.key, timeout=0.4, max_retries=4) as sdk:
        answer = await sdk.chat.completions.create(
            model="alpha",
            messages=[{"role": "user", "content": "go"}],
            max_tokens=100,
            extra_headers=keyed(new_key()),
            extra_body={"ignore_eos": True, "metadata": {"forebay_inter_token_ms": "8"}},
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 100
    assert books.settlement()["completion_tokens"] == 100


@pytest.mark.parametrize("stream", [True, False])
async def test_fifty_at_once(async_client: httpx.AsyncClient, books: Books, stream: bool) -> None:
    """One of them is answered by the engine, all get its bytes."""
    key, body = keyed(new_key()), question(CHAT, stream=stream, num_tokens=30, ms=3)
    answers = await asyncio.gather(*(async_client.post(CHAT, json=body, headers=key) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" in answer.headers for answer in answers) == 49
    assert books.settlement()["completion_tokens"] == 30
