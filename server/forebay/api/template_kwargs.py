"""Which variables of a chat template a request may set: an allow-list of scalars (CVE-2025-61620)."""

from __future__ import annotations

import re
from typing import Any

from forebay.api.schemas import ChatRequest, TemplateBody
from forebay.errors import InvalidRequest, UnsupportedParameter

ALLOWED = frozenset(
    {
        "clear_thinking",
        "date_string",
        "enable_thinking",
        "model_identity",
        "preserve_thinking",
        "reasoning_effort",
        "thinking",
        "thinking_budget",
        "thinking_mode",
    }
)


def template_kwargs(body: TemplateBody, chat_template: str | None) -> dict[str, Any]:
    """What the template gets beside the messages. Raises `UnsupportedParameter` for what it does not read.

    False is taken all the same: it asks for nothing, and clients switch reasoning off without knowing whether there is
    any.
    """
    effort = body.reasoning_effort if isinstance(body, ChatRequest) else None
    if not body.chat_template_kwargs and effort is None:
        return {}
    given = {f"chat_template_kwargs.{name}": (name, value) for name, value in (body.chat_template_kwargs or {}).items()}
    if any(name not in ALLOWED for name, _ in given.values()):
        allowed = ", ".join(sorted(ALLOWED))
        raise InvalidRequest(f"`chat_template_kwargs` may set: {allowed}.", param="chat_template_kwargs")
    if effort is not None:
        given["reasoning_effort"] = ("reasoning_effort", effort)
    for path, (name, value) in given.items():
        if value is not False and not re.search(rf"\b{name}\b", chat_template or ""):
            raise UnsupportedParameter(f"`{path}` is not supported: the model's template does not read it.", param=path)
    return dict(given.values())
