"""OpenAI's messages become canonical ones, or are refused by the name of the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage

from forebay.chat.messages import ignored_fields, to_chat
from forebay.chat.reasoning import FAMILIES
from forebay.errors import ApiError, InvalidRequest, UnsupportedParameter
from forebay.types import Chat

TEMPLATE = "{% for message in messages %}{{ message.role }}{{ message.content }}{% endfor %}"
USER = {"role": "user", "content": "Hi"}
LONE = "a\ud800b"


def chat(*messages: Mapping[str, Any], template: str | None = TEMPLATE, **options: Any) -> Chat:
    options = {"add_generation_prompt": True, "continue_final_message": False, "template_kwargs": {}, **options}
    return to_chat(messages, chat_template=template, family=None, **options)


def refusal(*messages: Mapping[str, Any], **options: Any) -> ApiError:
    with pytest.raises(InvalidRequest) as caught:
        chat(*messages, **options)
    assert caught.value.param is not None
    assert caught.value.param in caught.value.message
    return caught.value


def test_strings_and_parts() -> None:
    """Content is text: a string as it is, parts joined by newlines."""
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert chat(USER, {"role": "user", "content": parts}).messages == (USER, {"role": "user", "content": "one\ntwo"})


def test_developer_is_system() -> None:
    """The newer name of the role is the one that templates know."""
    assert chat({"role": "developer", "content": "Be brief."}).messages == ({"role": "system", "content": "Be brief."},)


@pytest.mark.parametrize(
    "message",
    [
        {"content": [{"type": "refusal", "refusal": "No."}]},
        {"content": None, "refusal": "No."},
        {"content": "", "refusal": "No."},
    ],
)
def test_a_refusal_is_what_the_assistant_said(message: dict[str, Any]) -> None:
    """Both places of a refusal are text of the assistant's turn."""
    assert chat({"role": "assistant", **message}).messages == ({"role": "assistant", "content": "No."},)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "video_url", "refusal"])
def test_media_is_refused_by_its_place(kind: str) -> None:
    """The part is named; a refusal is no user's to give."""
    error = refusal(USER, {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": kind, kind: {}}]})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "messages[1].content[1]"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "tool", "content": "4", "tool_call_id": "c"}, "messages[0].role"),
        ({"role": "function", "content": "4", "name": "f"}, "messages[0].role"),
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}, "messages[0].tool_calls"),
        ({"role": "assistant", "content": None, "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "content": "a", "audio": {"id": "x"}}, "messages[0].audio"),
        ({"role": "user", "content": "a", "reasoning": "r"}, "messages[0].reasoning"),
        ({"role": "user", "content": "a", "colour": "red"}, "messages[0].colour"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}]},
            "messages[0].content[0].cache_control",
        ),
    ],
)  # fmt: skip
def test_what_is_not_offered_is_refused_by_name(message: dict[str, Any], param: str) -> None:
    """Tool calls are a later issue, and unknown fields of messages are refused as unknown fields of bodies are."""
    error = refusal(message)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": None}, "messages[0].content"),
        ({"role": "system"}, "messages[0].content"),
        ({"role": "user", "content": []}, "messages[0].content"),
        ({"role": "assistant", "content": None}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "assistant", "content": "a", "refusal": 1}, "messages[0].refusal"),
        ({"role": "assistant", "content": "a", "reasoning": ["r"]}, "messages[0].reasoning"),
        (
            {"role": "assistant", "content": "a", "reasoning": "r", "reasoning_content": "s"},
            "messages[0].reasoning_content",
        ),
        ({"role": "user", "content": LONE}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text", "text": LONE}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": "a", "name": LONE}, "messages[0].name"),
        ({"role": "assistant", "content": "a", "reasoning_content": LONE}, "messages[0].reasoning_content"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(message: dict[str, Any], param: str) -> None:
    """Missing content, wrong types and half characters are a 400 with the path, never a failure further in."""
    assert refusal(message).param == param


def test_no_messages() -> None:
    """There is nothing to answer."""
    assert refusal().param == "messages"


def test_template_variables_are_text_too() -> None:
    """They reach the same template."""
    assert refusal(USER, template_kwargs={"date_string": LONE}).param == "chat_template_kwargs.date_string"
    assert chat(USER, template_kwargs={"enable_thinking": False}).template_kwargs == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("template", "kept"),
    [
        ("{{ message.name }}", True),
        ("{{ message['name'] }}", True),
        ("{{ message.get('name') or message['role'] }}", True),
        ("{% if 'name' in message %}n{% endif %}", True),
        ("{{ tool.name }}{{ message.content }}{{ tool_call['name'] }}", False),
        (None, False),
    ],
)
def test_names_go_to_templates_that_read_them(template: str | None, kept: bool) -> None:
    """Elsewhere a name cannot change the prompt, and is reported as ignored."""
    named = {**USER, "name": "Ann"}
    assert chat(named, template=template).messages == ((named if kept else USER),)
    assert ignored_fields([USER, named], template) == (() if kept else ("messages[1].name",))


def test_without_strictness_unknown_fields_are_listed() -> None:
    """Then they are ignored by name; cache hints always are."""
    message = {
        "role": "user",
        "colour": "red",
        "content": [{"type": "text", "text": "Hi", "size": 3, "prompt_cache_breakpoint": {"mode": "explicit"}}],
    }
    assert chat(message, strict=False).messages == (USER,)
    assert ignored_fields([message], TEMPLATE) == (
        "messages[0].content[0].prompt_cache_breakpoint",
        "messages[0].colour",
        "messages[0].content[0].size",
    )


def test_an_answer_can_be_sent_back_as_it_came() -> None:
    """The SDK's message with all its empty fields is an assistant's turn."""
    answer = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": "4",
            "refusal": None,
            "annotations": [],
            "reasoning": "2+2",
            "tool_calls": None,
        }
    ).model_dump()
    assert chat(answer).messages == ({"role": "assistant", "content": "4"},)


def test_reasoning_without_an_answer_can_be_sent_back() -> None:
    """A turn that was cut off inside its block has reasoning and no content."""
    answer = {"role": "assistant", "content": None, "reasoning": "Let me"}
    template = "{{ message.reasoning_content }}"
    expected = {"role": "assistant", "content": "", "reasoning_content": "Let me"}
    assert chat(answer, template=template).messages == (expected,)


def test_history_is_prepared_for_the_family() -> None:
    """Messages come out as `prepare_history` leaves them."""
    answer = {"role": "assistant", "content": "<think>a</think>b"}
    out = to_chat(
        [answer],
        add_generation_prompt=True,
        continue_final_message=False,
        template_kwargs={},
        chat_template="{{ message.reasoning }}",
        family=FAMILIES["qwen3"],
    )
    assert out.messages == ({"role": "assistant", "content": "b", "reasoning": "a"},)


def test_continuing_the_final_message() -> None:
    """It must be the assistant's, and no new turn may be opened after it."""
    start = {"role": "assistant", "content": "Once"}
    out = chat(USER, start, continue_final_message=True, add_generation_prompt=False)
    assert (out.continue_final_message, out.add_generation_prompt, out.messages) == (True, False, (USER, start))
    assert (out.prefill, chat(USER, start).prefill) == ("Once", "")
    for messages, generation in (((USER,), False), ((USER, start), True)):
        error = refusal(*messages, continue_final_message=True, add_generation_prompt=generation)
        assert error.param == "continue_final_message"
