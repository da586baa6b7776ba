"""Every field that the official client can send is honoured, refused by name, or listed as ignored; none is dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from openai.types import completion_create_params
from openai.types.chat import (
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
    ChatCompletionStreamOptionsParam,
)
from openai.types.chat import completion_create_params as chat_completion_create_params

from forebay.api.fields import CHAT, COMPLETIONS, Ignored, Refused
from forebay.api.schemas import ChatRequest, CompletionRequest, StreamOptions
from forebay.engines.scripted import ScriptedEngine
from support.inside import inside

ASK = [{"role": "user", "content": "Where does the water go?"}]

HONOURED: dict[str, Any] = {
    "model": "scripted",
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"65": 1},
    "max_tokens": 3,
    "min_tokens": 1,
    "n": 2,
    "seed": 1,
    "stop": ["x"],
    "stop_token_ids": [66],
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "skip_special_tokens": False,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "someone",
    "metadata": {"ticket": "7"},
}
HONOURED_CHAT: dict[str, Any] = {
    **HONOURED,
    "messages": ASK,
    "add_generation_prompt": True,
    "continue_final_message": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "max_completion_tokens": 3,
    "logprobs": True,
    "top_logprobs": 2,
    "safety_identifier": "someone",
    "include_reasoning": True,
}
HONOURED_COMPLETION: dict[str, Any] = {**HONOURED, "prompt": "The water", "echo": True, "logprobs": 1}
NEEDS: dict[str, dict[str, Any]] = {"stream_options": {"stream": True}, "top_logprobs": {"logprobs": True}}
"""What must be sent beside a field for it to mean anything."""
BY_MODEL = {"reasoning_effort"}
"""Declared, and refused by name where the model's template does not read it: tests/chat has templates that do."""

PATHS: dict[str, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
MINIMAL: dict[str, dict[str, Any]] = {
    "chat": {"messages": ASK, "max_tokens": 2},
    "completions": {"prompt": "The water", "max_tokens": 2},
}
TABLES: dict[str, Mapping[str, Refused | Ignored]] = {"chat": CHAT, "completions": COMPLETIONS}
EXAMPLES = {"chat": HONOURED_CHAT, "completions": HONOURED_COMPLETION}
SCHEMAS: dict[str, Any] = {"chat": ChatRequest, "completions": CompletionRequest}
SDK = {
    "chat": chat_completion_create_params.CompletionCreateParams,
    "completions": completion_create_params.CompletionCreateParams,
}


def post(raw: httpx.Client, route: str, **fields: Any) -> httpx.Response:
    return raw.post(PATHS[route], json={**MINIMAL[route], **fields})


def fields_of(union: Any) -> set[str]:
    """The fields of each member of a union of TypedDicts."""
    return {name for member in get_args(union) or (union,) for name in get_type_hints(member)}


def rows(kind: type[Refused | Ignored]) -> list[Any]:
    return [
        pytest.param(route, name, rule, id=f"{route}-{name}")
        for route, table in TABLES.items()
        for name, rule in table.items()
        if isinstance(rule, kind)
    ]


@pytest.mark.parametrize("route", PATHS)
def test_no_field_of_the_client_is_unknown(route: str) -> None:
    """When the client gains a field, it must be decided here what becomes of it; a field stands in one place only."""
    declared, table = set(SCHEMAS[route].model_fields), set(TABLES[route])
    sent = fields_of(SDK[route])
    assert len(sent) > 15
    assert sent - declared - table == set()
    assert declared & table == set()


def test_no_stream_option_of_the_client_is_unknown() -> None:
    """The same for what `stream_options` holds."""
    assert fields_of(ChatCompletionStreamOptionsParam) <= set(StreamOptions.model_fields)


@pytest.mark.parametrize("route", PATHS)
def test_every_declared_field_has_an_example(route: str) -> None:
    """The examples below are complete."""
    assert set(SCHEMAS[route].model_fields) == EXAMPLES[route].keys() | (BY_MODEL & set(SCHEMAS[route].model_fields))


@pytest.mark.parametrize(("route", "name"), [(route, name) for route in PATHS for name in EXAMPLES[route]])
def test_honoured_fields_are_accepted(raw: httpx.Client, route: str, name: str) -> None:
    """And not listed as ignored."""
    answer = post(raw, route, **{name: EXAMPLES[route][name]}, **NEEDS.get(name, {}))
    assert answer.status_code == 200, answer.text
    assert "x-ignored-params" not in answer.headers


@pytest.mark.parametrize("route", PATHS)
def test_honoured_fields_are_accepted_together(raw: httpx.Client, route: str) -> None:
    """All at once, but for `echo` with `logprobs`, which exclude each other."""
    everything = {name: value for name, value in EXAMPLES[route].items() if name != "echo"}
    answer = raw.post(PATHS[route], json=everything)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("route", PATHS)
async def test_who_the_client_asks_for_is_kept(route: str) -> None:
    """Identities and metadata change no answer: they stand in the request's record, for accounts."""
    names = {"user", "metadata", "safety_identifier"} & EXAMPLES[route].keys()
    given = {name: EXAMPLES[route][name] for name in names}
    async with inside(ScriptedEngine) as app:
        record = (await app.post(PATHS[route], {**MINIMAL[route], **given})).record
    assert {name: getattr(record, name) for name in names} == given
    assert len(names) >= 2


@pytest.mark.parametrize(("route", "name", "rule"), rows(Refused))
def test_refused_fields_are_refused_by_name(raw: httpx.Client, route: str, name: str, rule: Refused) -> None:
    """400, `unsupported_parameter`, the field in `param` and the reason in the message; streamed alike."""
    for extra in ({}, {"stream": True}):
        answer = post(raw, route, **{name: "something"}, **extra)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", name)
        assert error["message"] == f"`{name}` is not supported: {rule.why}"


@pytest.mark.parametrize(("route", "name", "rule"), rows(Refused))
def test_refused_fields_may_ask_for_nothing(raw: httpx.Client, route: str, name: str, rule: Refused) -> None:
    """Null, and the values that ask for what happens anyway, are accepted."""
    for value in (None, *rule.neutral):
        answer = post(raw, route, **{name: value})
        assert answer.status_code == 200, answer.text
        assert "x-ignored-params" not in answer.headers


@pytest.mark.parametrize(("route", "name", "rule"), rows(Ignored))
def test_ignored_fields_are_listed(raw: httpx.Client, route: str, name: str, rule: Ignored) -> None:
    """Fields that cannot change the answer here are named in a header."""
    answer = post(raw, route, **{name: "something"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ignored-params"] == name


@pytest.mark.parametrize("name", sorted(BY_MODEL))
def test_what_depends_on_the_model_is_refused_by_name(raw: httpx.Client, name: str) -> None:
    """This model's template does not read it."""
    error = post(raw, "chat", **{name: "low"}).json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)


def message_fields() -> Iterator[Any]:
    """(message type's role, field) of every message that the client can send."""
    for member in get_args(ChatCompletionMessageParam):
        hints = get_type_hints(member)
        (role,) = get_args(hints["role"]) or get_args(get_args(hints["role"])[0])
        for name in sorted(hints.keys() - {"role"}):
            yield pytest.param(role, name, id=f"{role}-{name}")


@pytest.mark.parametrize(("role", "name"), list(message_fields()))
def test_no_field_of_a_message_is_unknown(raw: httpx.Client, role: str, name: str) -> None:
    """Honoured, listed as ignored, or refused for a reason; never called unknown."""
    value = {"content": "x", "name": "ada", "refusal": "no"}.get(name, {"id": "x"})
    answer = post(raw, "chat", messages=[{"role": role, "content": "x", name: value}])
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
        assert error["param"] in (f"messages[0].{name}", "messages[0].role")
        assert "not a known" not in error["message"]
    elif name == "name":
        assert answer.headers["x-ignored-params"] == "messages[0].name"


def part_types() -> Iterator[Any]:
    for member in get_args(ChatCompletionContentPartParam):
        hints = get_type_hints(member)
        (kind,) = get_args(hints["type"]) or get_args(get_args(hints["type"])[0])
        yield pytest.param(kind, sorted(hints.keys() - {"type"}), id=kind)


@pytest.mark.parametrize(("kind", "names"), list(part_types()))
def test_no_field_of_a_content_part_is_unknown(raw: httpx.Client, kind: str, names: list[str]) -> None:
    """Text parts are read, with every field that the client knows of them; parts of other media are refused."""
    part = {"type": kind, **{name: "x" if name == "text" else {"mode": "explicit"} for name in names}}
    answer = post(raw, "chat", messages=[{"role": "user", "content": [part]}])
    if kind == "text":
        assert answer.status_code == 200, answer.text
        ignored = answer.headers.get("x-ignored-params", "").split(", ")
        assert [f"messages[0].content[0].{name}" for name in names if name != "text"] == [
            name for name in ignored if name
        ]
    else:
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", "messages[0].content[0]")
