"""Failures of the engine: with a status before the first byte, as a frame after it, always followed by `[DONE]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from support.server import ServerProcess
from support.sse import DONE, read_events

ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Where does the water go?"}]},
    "/v1/completions": {"prompt": "The water"},
}
each_route = pytest.mark.parametrize("path", ROUTES)


def post(raw: httpx.Client, path: str, fail: str, **fields: Any) -> httpx.Response:
    metadata = {"forebay_script": "one two three four five six", "forebay_burst": "1", "forebay_fail": fail}
    return raw.post(path, json={"model": "scripted", **ROUTES[path], "metadata": metadata, **fields})


def check_error(error: dict[str, Any], type_: str, code: str) -> None:
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == (type_, None, code)
    assert "Traceback" not in error["message"]


@each_route
@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_byte_an_error_has_a_status(raw: httpx.Client, path: str, stream: bool) -> None:
    """A request that fails before its first token is answered as JSON with the error's status, streamed or not."""
    answer = post(raw, path, "raise@0", stream=stream)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/json"
    check_error(answer.json()["error"], "server_error", "internal_error")


@each_route
def test_a_whole_answer_that_fails_late_is_an_error(raw: httpx.Client, path: str) -> None:
    """Nothing of a whole answer has left when it fails, so it is a status too, and no partial text."""
    answer = post(raw, path, "raise@4")
    assert answer.status_code == 500
    check_error(answer.json()["error"], "server_error", "internal_error")
    assert "three" not in answer.text


@each_route
@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stream_options": {"include_usage": True}}], ids=str)
def test_after_the_first_byte_an_error_is_a_frame(raw: httpx.Client, path: str, fields: dict[str, Any]) -> None:
    """What was written has left; then one error frame and `[DONE]`, no finish and no usage that would look whole."""
    *chunks, error, done = read_events(post(raw, path, "raise@3", stream=True, **fields))
    assert done == DONE
    assert set(error) == {"error"}
    check_error(error["error"], "server_error", "internal_error")
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    texts = [choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices]
    assert "one" in "".join(texts)
    assert all(choice["finish_reason"] is None for choice in choices)
    assert all(chunk.get("usage") is None for chunk in chunks)


def test_one_failing_prompt_fails_the_request(raw: httpx.Client) -> None:
    """Several prompts are one answer: it fails as one, whole and streamed."""
    prompt = ["One", "Two", "Three"]
    assert post(raw, "/v1/completions", "raise@2", prompt=prompt).status_code == 500
    events = read_events(post(raw, "/v1/completions", "raise@2", prompt=prompt, stream=True))
    assert events[-1] == DONE
    assert [set(event) for event in events if event != DONE and "error" in event] == [{"error"}]
    assert "error" in events[-2]


def test_the_client_raises_at_the_error_frame(client: OpenAI) -> None:
    """The official client hands out what came and then raises, with our message and code."""
    metadata = {"forebay_script": "one two three", "forebay_burst": "1", "forebay_fail": "raise@2"}
    received = []
    with (
        client.chat.completions.create(
            model="scripted", messages=[{"role": "user", "content": "Go."}], metadata=metadata, stream=True
        ) as chunks,
        pytest.raises(openai.APIError) as caught,
    ):
        received.extend(chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in received)
    assert text.startswith("o")
    assert caught.value.code == "internal_error"
    assert caught.value.type == "server_error"
    assert caught.value.message == "The engine failed on this request."


def test_the_next_request_is_served(client: OpenAI, raw: httpx.Client) -> None:
    """A failed request leaves nothing behind."""
    post(raw, "/v1/completions", "raise@1", n=8)
    answer = client.completions.create(model="scripted", prompt="The water", max_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_timeouts_and_a_dead_engine_follow_the_same_rule(make_server: Callable[..., ServerProcess]) -> None:
    """A hung request is a 504 or a frame of its code, a death a 503 with Retry-After or a frame."""
    server = make_server(FOREBAY_REQUEST_TIMEOUT_S="1.5", FOREBAY_ENGINE_RESTARTS="2", FOREBAY_ENGINE="scripted")
    with httpx.Client(base_url=server.url, timeout=20) as own:
        answer = post(own, "/v1/completions", "hang@0", stream=True)
        assert answer.status_code == 504
        check_error(answer.json()["error"], "server_error", "timeout")
        *chunks, error, done = read_events(post(own, "/v1/completions", "hang@2", stream=True))
        assert chunks
        assert done == DONE
        check_error(error["error"], "server_error", "timeout")

        answer = post(own, "/v1/chat/completions", "die@0", stream=True)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        check_error(answer.json()["error"], "server_error", "engine_unavailable")
        server.wait_ready(20)
        *chunks, error, done = read_events(post(own, "/v1/chat/completions", "die@2", stream=True))
        assert chunks
        assert done == DONE
        check_error(error["error"], "server_error", "engine_unavailable")
