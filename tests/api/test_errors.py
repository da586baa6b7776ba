"""Error bodies as the official client reads them, request ids, and what is said of ignored fields."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from support.server import ServerProcess

ASK: list[Any] = [{"role": "user", "content": "Where does the water go?"}]
CHAT = {"model": "scripted", "messages": ASK, "max_tokens": 1}


def test_a_malformed_field_is_a_bad_request(client: OpenAI) -> None:
    """The client's exception carries our message, type, code, the field and the request's id."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, temperature=9)
    error = caught.value
    assert (error.status_code, error.code, error.param) == (400, "invalid_value", "temperature")
    assert error.type == "invalid_request_error"
    assert "`temperature`" in error.message
    assert error.request_id == error.response.headers["x-request-id"]
    assert set(error.body) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_what_is_no_number_is_refused(raw: httpx.Client, value: str) -> None:
    """NaN and Infinity are no JSON, though some encoders write them."""
    text = f'{{"messages": [{{"role": "user", "content": "x"}}], "temperature": {value}}}'
    answer = raw.post("/v1/chat/completions", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_value"


def test_an_unsupported_field_has_a_code_of_its_own(client: OpenAI) -> None:
    """What OpenAI offers and we do not is told apart from what is wrong."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, response_format={"type": "json_object"})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "response_format")


def test_an_unknown_field_is_refused_by_name(client: OpenAI) -> None:
    """Strict is the default: a typing error is no silent default."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, extra_body={"temprature": 0})
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "temprature")


def test_a_route_that_is_not_offered_is_not_found(client: OpenAI) -> None:
    """OpenAI's other routes are a 404 that the client understands, and not a web page."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="scripted", input="x")
    assert (caught.value.code, caught.value.type) == ("not_found", "not_found_error")
    with pytest.raises(openai.APIStatusError) as method:
        client.get("/chat/completions", cast_to=object)
    assert (method.value.status_code, method.value.code) == (405, "method_not_allowed")
    assert method.value.response.headers["allow"] == "POST"


def test_a_missing_or_wrong_key_is_unauthenticated(keyed_server: ServerProcess) -> None:
    """The client's own exception for 401."""
    with (
        OpenAI(base_url=keyed_server.base_url, api_key="wrong-key-0123456789", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"
    assert "wrong-key" not in caught.value.message


@pytest.mark.parametrize(
    "asked", ["abc-123", "trace id with spaces", "~!@#$%^&*()", "x" * 128], ids=["plain", "spaces", "signs", "longest"]
)
def test_a_request_id_is_echoed(raw: httpx.Client, asked: str) -> None:
    """The client's own id comes back, on answers, streams and errors; our ids stay our own."""
    for body in (CHAT, {**CHAT, "stream": True}, {**CHAT, "n": 99}):
        answer = raw.post("/v1/chat/completions", json=body, headers={"x-request-id": asked})
        assert answer.headers["x-request-id"] == asked
        assert asked not in answer.text


@pytest.mark.parametrize("asked", [None, "", "x" * 129, "a\tb", "ümlaut".encode()], ids=repr)
def test_a_request_id_is_made(raw: httpx.Client, asked: Any) -> None:
    """Without one that is short and printable the server makes one, a new one each time."""
    headers = {} if asked is None else {"x-request-id": asked}
    ids = {raw.get("/v1/models", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(made) == 32 and made.isalnum() for made in ids)


def test_a_made_id_is_that_of_the_answer(raw: httpx.Client) -> None:
    """The header, and the id in the body, name one request."""
    answer = raw.post("/v1/chat/completions", json=CHAT)
    assert answer.json()["id"] == f"chatcmpl-{answer.headers['x-request-id']}"


def post_lenient(unusual_server: ServerProcess, **fields: Any) -> httpx.Response:
    return httpx.post(f"{unusual_server.base_url}/chat/completions", json={**CHAT, **fields})


def test_lenient_servers_list_what_they_ignore(unusual_server: ServerProcess) -> None:
    """With `strict: false` unknown fields are named in `x-ignored-params`, of the body and of its messages."""
    message = {"role": "user", "content": "x", "mood": "good"}
    answer = post_lenient(unusual_server, flux_capacity=1.21, prompt_cache_key="k", messages=[message])
    assert answer.status_code == 200
    assert answer.headers["x-ignored-params"].split(", ") == ["flux_capacity", "prompt_cache_key", "messages[0].mood"]
    streamed = post_lenient(unusual_server, flux_capacity=1.21, stream=True)
    assert streamed.headers["x-ignored-params"] == "flux_capacity"
    streamed = post_lenient(unusual_server, stream=True, stream_options={"include_weather": True})
    assert streamed.status_code == 200
    assert streamed.headers["x-ignored-params"] == "stream_options.include_weather"


def test_lenient_servers_still_refuse_what_they_know_they_cannot_do(unusual_server: ServerProcess) -> None:
    """A known field that would change the answer is refused in either mode."""
    answer = post_lenient(unusual_server, tools=[{"type": "function", "function": {"name": "f"}}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools"


def test_names_of_ignored_fields_cannot_break_the_header(unusual_server: ServerProcess) -> None:
    """Line breaks, other scripts and sheer numbers in the client's names leave a header that every client reads."""
    answer = post_lenient(unusual_server, **{"a\r\nx-evil: 1": 1, "wärme": 2, "b,c": 3})
    assert answer.status_code == 200
    assert answer.headers["x-ignored-params"] == "a??x-evil:?1, w?rme, b?c"
    assert "x-evil" not in answer.headers
    many = post_lenient(unusual_server, **{f"{'long' * 20}{number}": number for number in range(400)})
    assert many.status_code == 200
    listed = many.headers["x-ignored-params"]
    assert len(listed) < 1200
    assert listed.endswith(" more")
    assert listed.count(", ") + int(listed.rpartition("and ")[2].removesuffix(" more")) == 400
