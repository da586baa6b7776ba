"""What a request may bring along: templates, embeddings, media, grammars, and nothing of the engine's insides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from forebay.engines.base import Engine, EngineInfo
from forebay.engines.scripted import ScriptedEngine
from forebay.settings import Settings
from support.door import CHAT, COMPLETIONS, MESSAGES, TOKENIZE, Door, check_refused, check_unsupported
from support.inside import inside


class Templated(ScriptedEngine):
    """Says that its template is another."""

    def __init__(self, settings: Settings, chat_template: str) -> None:
        super().__init__(settings)
        self._chat_template = chat_template

    @property
    def info(self) -> EngineInfo:
        return replace(super().info, chat_template=self._chat_template)


BOTH = pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
TEMPLATED = pytest.mark.parametrize("path", [CHAT, TOKENIZE])


def test_a_template_from_a_client_is_refused(door: Door) -> None:
    """CVE-2026-115911, CVE-2026-115918: a template is a program."""
    check_unsupported(door.post(CHAT, chat_template="{{ messages }}"), "chat_template")
    answer = door.send(TOKENIZE, b'{"messages": [{"role": "user", "content": "hi"}], "chat_template": "x"}')
    check_unsupported(answer, "chat_template")


@pytest.mark.parametrize(
    "name", ["chat_template", "tools", "tokenize", "messages", "add_generation_prompt", "x" * 9999]
)
def test_template_variables_come_from_a_list(door: Door, name: str) -> None:
    """CVE-2025-61620: `chat_template_kwargs` reached the renderer whole, `chat_template` and `tokenize` included."""
    answer = door.post(CHAT, chat_template_kwargs={name: "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "chat_template_kwargs"
    assert len(answer.content) < 1000


@pytest.mark.parametrize("value", [{}, {"a": 1}, [], [1], "x" * 257, None])
def test_template_variables_are_scalars(door: Door, value: Any) -> None:
    """CVE-2025-61620: a structure can make a template loop for long."""
    answer = door.post(CHAT, chat_template_kwargs={"thinking_budget": value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("chat_template_kwargs")


@TEMPLATED
@pytest.mark.parametrize("name", ["enable_thinking", "thinking_budget", "reasoning_effort"])
async def test_template_variables_are_those_that_the_template_reads(path: str, name: str) -> None:
    """One that it does not mention would be dropped, so it is refused; False asks for nothing."""

    def templated(settings: Settings) -> Engine:
        return Templated(settings, "{% if enable_thinking %}{% endif %}{{ messages }}")

    body = {"messages": MESSAGES} | ({"max_tokens": 1} if path == CHAT else {})
    async with inside(templated) as app:
        read = name == "enable_thinking"
        for value in (True, 5, "x" * 256):
            answer = await app.post(path, body | {"chat_template_kwargs": {name: value}})
            assert answer.status == (200 if read else 400), answer.body
            if not read:
                error = answer.json()["error"]
                assert (error["code"], error["param"]) == ("unsupported_parameter", f"chat_template_kwargs.{name}")
        assert (await app.post(path, body | {"chat_template_kwargs": {name: False}})).status == 200


@BOTH
@pytest.mark.parametrize("value", ["aGk=", ["aGk="], [[0.1]]])
def test_embeddings_as_input_are_refused(door: Door, path: str, value: Any) -> None:
    """CVE-2025-62164, CVE-2026-56340: a serialised tensor from a client is code from a client."""
    check_unsupported(door.post(path, prompt_embeds=value), "prompt_embeds")


def test_a_prompt_of_floats_is_refused(door: Door) -> None:
    """CVE-2025-62164: nor in the prompt's place."""
    for prompt in ([0.1, 0.2], [[0.1, 0.2]], {"prompt_embeds": "aGk="}):
        check_refused(door.post(COMPLETIONS, prompt=prompt), "prompt")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": "http://example.org/"},
        {"type": "video_url", "video_url": {"url": "http://example.org/"}},
        {"type": "audio_url", "audio_url": {"url": "http://example.org/"}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {"type": "file", "file": {"file_data": "aGk="}},
        {"type": "image_embeds", "image_embeds": "aGk="},
        {"type": "image_pil", "image_pil": "aGk="},
        {"type": "no such type"},
    ],
    ids=lambda part: part["type"],
)
@TEMPLATED
def test_media_is_refused_and_nothing_is_fetched(door: Door, path: str, part: dict[str, Any]) -> None:
    """CVE-2025-6242, CVE-2026-24779, CVE-2026-25960: servers were made to fetch from their own network."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]
    answer = door.send(path, bytes(str({"messages": messages}).replace("'", '"'), "ascii"))
    check_unsupported(answer, "messages[0].content[1]")


@pytest.mark.parametrize(
    "field", ["structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"]
)
@BOTH
def test_grammars_are_refused(door: Door, path: str, field: str) -> None:
    """Compiling what a client wrote can take for ever.

    CVE-2025-48942, CVE-2025-48943, CVE-2025-48944, CVE-2026-55574, CVE-2026-105757.
    """
    check_unsupported(door.post(path, **{field: "(a+)+$"}), field)


@pytest.mark.parametrize("kind", ["json_object", "json_schema", "structural_tag", "grammar"])
@BOTH
def test_response_formats_are_refused(door: Door, path: str, kind: str) -> None:
    """CVE-2025-48942: the same by OpenAI's name. Plain text asks for nothing and is taken."""
    check_unsupported(door.post(path, response_format={"type": kind}), "response_format")
    assert door.post(path, response_format={"type": "text"}).status_code == 200


INTERNALS = {
    "priority": -1,
    "request_id": "mine",
    "cache_salt": "theirs",
    "kv_transfer_params": {"do_remote_prefill": True},
    "vllm_xargs": {"a": 1},
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "logits_processors": ["os.system"],
    "truncate_prompt_tokens": 1,
    "mm_processor_kwargs": {"a": 1},
}


@BOTH
@pytest.mark.parametrize("field", INTERNALS)
def test_fields_of_the_engine_are_refused(door: Door, path: str, field: str) -> None:
    """vLLM's server trusts them: a client could overtake others, share their cache, or read another's blocks."""
    check_unsupported(door.post(path, **{field: INTERNALS[field]}), field)


@pytest.mark.parametrize("role", ["admin", "root", "System", "", "tool", None, 1])
def test_roles_are_those_of_a_conversation(door: Door, role: Any) -> None:
    """CVE-2026-47101, CVE-2026-47102 (a role in the body that was granted): here it is a part of the prompt alone."""
    answer = door.post(CHAT, messages=[{"role": role, "content": "hi"}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].role"


@pytest.mark.parametrize(
    ("path", "field"), [(CHAT, "no_such_field"), (COMPLETIONS, "messages"), (TOKENIZE, "n"), ("/generate", "user")]
)
def test_unknown_fields_are_refused_by_name(door: Door, path: str, field: str) -> None:
    """Nothing is silently dropped."""
    check_unsupported(door.post(path, **{field: MESSAGES}), field)
