"""OpenAI's chat messages in the one form that templates and engines get."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from forebay.chat.reasoning_families import ReasoningFamily
from forebay.chat.reasoning_history import prepare_history
from forebay.chat.template_fields import reads_field
from forebay.errors import InvalidRequest, UnsupportedParameter
from forebay.types import Chat, Message

_KNOWN = frozenset({"role", "content", "name", "tool_calls", "function_call", "tool_call_id", "audio"})
_ASSISTANT = _KNOWN | {"refusal", "reasoning", "reasoning_content"}
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_PART = frozenset({"type", "text", "refusal"})
_HINT = "prompt_cache_breakpoint"
"""A hint to OpenAI's prompt cache; ours finds shared prefixes by itself."""
_NEUTRAL: tuple[Any, ...] = (None, [], "")
"""Values that ask for nothing: clients send a whole answer back, empty fields and all."""


def to_chat(
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    continue_final_message: bool,
    template_kwargs: Mapping[str, Any],
    chat_template: str | None,
    family: ReasoningFamily | None,
    strict: bool = True,
) -> Chat:
    """Canonical messages: roles `system|user|assistant`, text content, reasoning as the template takes it.

    `developer` is `system`. Parts of text (and of refusal) are joined by newlines, as vLLM does. `name` is handed to
    templates that read it. Raises `UnsupportedParameter` for media, tool calls and, if `strict`, unknown fields;
    `InvalidRequest` for the rest; both name the field.
    """
    if not messages:
        raise InvalidRequest("`messages` must not be empty.", param="messages")
    if continue_final_message:
        if add_generation_prompt:
            raise InvalidRequest(
                "`continue_final_message` and `add_generation_prompt` exclude each other.",
                param="continue_final_message",
            )
        if messages[-1]["role"] != "assistant":
            raise InvalidRequest(
                "`continue_final_message` needs the last message to be the assistant's.", param="continue_final_message"
            )
    for key, value in template_kwargs.items():
        if isinstance(value, str):
            _check_text(value, f"chat_template_kwargs.{key}")
    canonical: list[Message] = []
    for i, message in enumerate(messages):
        plain = _is_plain(message) and _is_text(message["content"])
        canonical.append(message if plain else _canonical(message, f"messages[{i}]", chat_template, strict=strict))
    return Chat(
        messages=prepare_history(tuple(canonical), family, chat_template),
        add_generation_prompt=add_generation_prompt,
        continue_final_message=continue_final_message,
        template_kwargs=template_kwargs,
    )


def ignored_fields(messages: Sequence[Mapping[str, Any]], chat_template: str | None) -> tuple[str, ...]:
    """Paths of what cannot change the prompt: a `name` that the template does not read, cache hints, unknown fields."""
    ignored: list[str] = []
    for i, message in enumerate(messages):
        if _is_plain(message):
            continue
        path = f"messages[{i}]"
        if message.get("name") and not reads_field(chat_template, "name"):
            ignored.append(f"{path}.name")
        ignored += (f"{at}.{_HINT}" for at, part in _parts(message, path) if part.get(_HINT) is not None)
        ignored += _unknown(message, path)
    return tuple(ignored)


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether it is canonical as it stands, as most are: a role, a string, and nothing else."""
    return len(message) == 2 and message["role"] in _PLAIN_ROLES and isinstance(message.get("content"), str)


def _canonical(message: Mapping[str, Any], path: str, chat_template: str | None, *, strict: bool) -> Message:
    role = message["role"]
    if role in ("tool", "function"):
        raise UnsupportedParameter(
            f"`{path}.role` {role!r} is not supported: tool calls are not offered yet.", param=f"{path}.role"
        )
    _refuse(message, path, strict=strict)
    out: dict[str, Any] = {"role": "system" if role == "developer" else role}
    reasoning = _reasoning(message, path) if role == "assistant" else ""
    out["content"] = _content(message, path, may_be_empty=bool(reasoning))
    if reasoning:
        out["reasoning"] = reasoning
    if (name := _text(message, "name", path)) and reads_field(chat_template, "name"):
        out["name"] = name
    return out


def _refuse(message: Mapping[str, Any], path: str, *, strict: bool) -> None:
    for key in ("tool_calls", "function_call", "tool_call_id", "audio"):
        if message.get(key) not in _NEUTRAL:
            why = "the model reads text only." if key == "audio" else "tool calls are not offered yet."
            raise UnsupportedParameter(f"`{path}.{key}` is not supported: {why}", param=f"{path}.{key}")
    if strict and (unknown := next(_unknown(message, path), None)):
        raise UnsupportedParameter(f"`{unknown}` is not a known field.", param=unknown)


def _unknown(message: Mapping[str, Any], path: str) -> Iterator[str]:
    known = _ASSISTANT if message["role"] == "assistant" else _KNOWN
    yield from _unknown_keys(message, path, known)
    for at, part in _parts(message, path):
        if part["type"] in ("text", "refusal"):  # the others are refused as they are
            yield from _unknown_keys(part, at, _PART | {_HINT})


def _unknown_keys(value: Mapping[str, Any], path: str, known: Collection[str]) -> Iterator[str]:
    return (f"{path}.{key[:64]}" for key in value if key not in known and value[key] not in _NEUTRAL)


def _parts(message: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = message.get("content")
    if not isinstance(content, str):
        yield from ((f"{path}.content[{j}]", part) for j, part in enumerate(content or ()))


def _content(message: Mapping[str, Any], path: str, *, may_be_empty: bool) -> str:
    content = message.get("content")
    if isinstance(content, str):
        texts = [_check_text(content, f"{path}.content")]
    else:
        texts = [_part(part, message["role"], at) for at, part in _parts(message, path)]
    if message["role"] == "assistant" and (refusal := _text(message, "refusal", path)):
        texts = [text for text in texts if text] + [refusal]
    if not texts and not may_be_empty:
        raise InvalidRequest(f"`{path}.content` is required.", param=f"{path}.content")
    return "\n".join(texts)


def _part(part: Mapping[str, Any], role: str, path: str) -> str:
    kind = part["type"]
    if kind == "text" or (kind == "refusal" and role == "assistant"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise InvalidRequest(f"`{path}.{kind}` must be a string.", param=f"{path}.{kind}")
        return _check_text(text, f"{path}.{kind}")
    raise UnsupportedParameter(f"`{path}` is not supported: the model reads parts of type `text` only.", param=path)


def _reasoning(message: Mapping[str, Any], path: str) -> str:
    """Either name is read; both are accepted together, as servers that send both get them back."""
    reasoning, older = _text(message, "reasoning", path), _text(message, "reasoning_content", path)
    if reasoning and older and reasoning != older:
        raise InvalidRequest(
            f"`{path}.reasoning` and `{path}.reasoning_content` differ.", param=f"{path}.reasoning_content"
        )
    return reasoning or older


def _text(message: Mapping[str, Any], key: str, path: str) -> str:
    value = message.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequest(f"`{path}.{key}` must be a string.", param=f"{path}.{key}")
    return _check_text(value, f"{path}.{key}")


def _check_text(text: str, path: str) -> str:
    if not _is_text(text):
        raise InvalidRequest(f"`{path}` holds a lone surrogate, which is not text.", param=path)
    return text


def _is_text(text: str) -> bool:
    """Lone surrogates are half a character: no tokenizer takes them, and UTF-8 cannot carry them back."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
