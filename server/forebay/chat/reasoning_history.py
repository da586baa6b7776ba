"""Reasoning of earlier turns: to the template under the name it reads, or nowhere."""

from __future__ import annotations

from forebay.chat.reasoning_families import ReasoningFamily
from forebay.chat.reasoning_split import ReasoningSplitter
from forebay.chat.template_fields import reads_field
from forebay.types import Message, Prompt

TEMPLATE_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""What chat templates call the reasoning of an assistant's message."""


def prepare_history(
    messages: tuple[Message, ...], family: ReasoningFamily | None, chat_template: str | None
) -> tuple[Message, ...]:
    """Messages as the template expects them; those without reasoning are passed on as they are.

    `reasoning`, or else `reasoning_content`, of an assistant's message becomes the fields that the template reads,
    which then keeps or drops it by its own rules. A template that reads none expects history without reasoning: it is
    left out. Content is never touched where the template deals with the closing marker itself; where it reads a field
    and knows no marker, a whole block that begins the content is moved to the field.
    """
    if "assistant" not in {message["role"] for message in messages}:
        return messages
    fields = tuple(field for field in TEMPLATE_FIELDS if reads_field(chat_template, field))
    splits = bool(fields) and family is not None and not any(end in (chat_template or "") for end in family.ends)
    return tuple(
        _prepare(message, fields, family if splits else None) if message["role"] == "assistant" else message
        for message in messages
    )


def _prepare(message: Message, fields: tuple[str, ...], family: ReasoningFamily | None) -> Message:
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
    if not reasoning:
        if family is None:
            return message
        reasoning, content = _split_block(message["content"], family)
        message = {**message, "content": content}
    rest = {key: value for key, value in message.items() if key not in ("reasoning", "reasoning_content")}
    return {**rest, **dict.fromkeys(fields, reasoning)} if reasoning else rest


def _split_block(content: str, family: ReasoningFamily) -> tuple[str, str]:
    """(reasoning, answer) of a content that begins with a whole block; else none and the content."""
    splitter = ReasoningSplitter(family, Prompt(()))
    reasoning, answer = splitter.push(content)
    if not content.lstrip().startswith(family.starts) or splitter.reasoning:
        return "", content
    rest = splitter.flush()
    return reasoning + rest[0], answer + rest[1]
