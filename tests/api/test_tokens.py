"""`/tokenize` and `/detokenize`, with vLLM's fields."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import OpenAI

TALK: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Where does"}, {"type": "text", "text": "the water go?"}]},
    {"role": "assistant", "content": "Down."},
    {"role": "user", "content": "And 水 🌊?"},
]


def tokenize(raw: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = raw.post("/tokenize", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def detokenize(raw: httpx.Client, tokens: list[int]) -> Any:
    answer = raw.post("/detokenize", json={"tokens": tokens})
    assert answer.status_code == 200, answer.text
    return answer.json()["prompt"]


@pytest.mark.parametrize("text", ["The water goes down.", "水は流れる 🌊\r\n\tü", "", " ", "a" * 10_000], ids=len)
def test_text_goes_to_tokens_and_back(raw: httpx.Client, text: str) -> None:
    """The round trip is exact; the count is that of the tokens."""
    found = tokenize(raw, prompt=text)
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == 8192
    assert found["token_strs"] is None
    assert detokenize(raw, found["tokens"]) == text


def test_token_strings_are_given_on_request(raw: httpx.Client) -> None:
    """`return_token_strs`: each token by itself."""
    found = tokenize(raw, prompt="The water goes", return_token_strs=True)
    assert len(found["token_strs"]) == found["count"]
    assert "".join(found["token_strs"]) == "The water goes"


@pytest.mark.parametrize(
    ("messages", "extra"),
    [
        (TALK, {}),
        (TALK[:1], {}),
        (TALK, {"add_generation_prompt": False}),
        (TALK[:3], {"continue_final_message": True, "add_generation_prompt": False}),
    ],
    ids=["talk", "one", "no generation prompt", "continued"],
)
def test_messages_tokenize_to_what_a_chat_is_billed(
    client: OpenAI, raw: httpx.Client, messages: list[Any], extra: dict[str, Any]
) -> None:
    """The tokens of a conversation are the `prompt_tokens` of the chat, and those a completion continues alike."""
    found = tokenize(raw, messages=messages, **extra)
    chat = client.chat.completions.create(
        model="scripted", messages=messages, temperature=0, max_tokens=8, extra_body=extra
    )
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == found["count"]
    completion = client.completions.create(model="scripted", prompt=found["tokens"], temperature=0, max_tokens=8)
    assert completion.choices[0].text == chat.choices[0].message.content


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": TALK}, "prompt"),
        ("/tokenize", {"prompt": ["x"]}, "prompt"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"prompt": "x", "colour": "blue"}, "colour"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/detokenize", {"tokens": [1.5]}, "tokens[0]"),
    ],
    ids=str,
)
def test_what_is_no_text_and_no_token_is_refused(
    raw: httpx.Client, path: str, body: dict[str, Any], param: str
) -> None:
    """Either a text or a conversation; ids inside the vocabulary; each refusal names the field."""
    answer = raw.post(path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("given", "name", "value", "neutral"),
    [
        ({"messages": TALK}, "add_special_tokens", True, False),
        ({"prompt": "x"}, "add_generation_prompt", True, False),
        ({"prompt": "x"}, "continue_final_message", True, False),
        ({"prompt": "x"}, "chat_template_kwargs", {"enable_thinking": False}, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_other_input_reads_is_refused(
    raw: httpx.Client, given: dict[str, Any], name: str, value: Any, neutral: Any
) -> None:
    """No field is dropped; null and what happens anyway are taken."""
    answer = raw.post("/tokenize", json={**given, name: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", name)
    for nothing in (None, neutral):
        assert tokenize(raw, **given, **{name: nothing})["count"] > 0
