"""What becomes of every request field that clients are known to send: honoured, refused or ignored, by name.

Fields that a schema declares are honoured. The rest stand here. A refused field is accepted with a value that asks for
nothing (None, or one listed as neutral); an ignored one is listed in the `x-ignored-params` header.
tests/api/test_fields.py fails when the openai package knows a field that neither a schema nor this table knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forebay.errors import UnsupportedParameter


@dataclass(frozen=True, slots=True)
class Refused:
    """`why` completes "`field` is not supported: ...". `neutral` values ask for what happens anyway."""

    why: str
    neutral: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Ignored:
    """The field cannot change the answer here."""


_TOOLS = "tool calls are not offered yet."
_STRUCTURED = "structured output is not offered yet."
_INTERNAL = "it is set by the server alone."
_TEMPLATE_ADDS = Refused("the chat template writes the special tokens.", (False,))
_TOKENS = "per-request token lists are not offered; use `logit_bias`."

_COMMON: Mapping[str, Refused | Ignored] = {
    "best_of": Refused("answers are not ranked; ask for `n`.", (1,)),
    "use_beam_search": Refused("beam search is not offered.", (False,)),
    "length_penalty": Refused("beam search is not offered.", (1, 1.0)),
    "prompt_logprobs": Refused("log-probabilities of the prompt are not offered."),
    "prompt_embeds": Refused("embeddings are not accepted as input."),
    "allowed_token_ids": Refused(_TOKENS),
    "bad_words": Refused(_TOKENS, ([],)),
    "logprob_token_ids": Refused(_TOKENS),
    "truncate_prompt_tokens": Refused("prompts are never cut."),
    "truncation_side": Refused("prompts are never cut."),
    "spaces_between_special_tokens": Refused("special tokens are written as the tokenizer writes them.", (True,)),
    "structured_outputs": Refused(_STRUCTURED),
    "guided_json": Refused(_STRUCTURED),
    "guided_regex": Refused(_STRUCTURED),
    "guided_choice": Refused(_STRUCTURED),
    "guided_grammar": Refused(_STRUCTURED),
    "priority": Refused(_INTERNAL, (0,)),
    "request_id": Refused(_INTERNAL),
    "cache_salt": Refused(_INTERNAL),
    "kv_transfer_params": Refused(_INTERNAL),
    "vllm_xargs": Refused(_INTERNAL),
    "logits_processors": Refused(_INTERNAL),
    "return_token_ids": Refused("token ids are not returned.", (False,)),
    "return_tokens_as_token_ids": Refused("token ids are not returned.", (False,)),
    "mm_processor_kwargs": Refused("the model reads text only."),
}

CHAT: Mapping[str, Refused | Ignored] = {
    **_COMMON,
    "audio": Refused("the model writes text only."),
    "modalities": Refused("the model writes text only.", (["text"],)),
    "function_call": Refused(_TOOLS, ("none",)),
    "functions": Refused(_TOOLS, ([],)),
    "tools": Refused(_TOOLS, ([],)),
    "tool_choice": Refused(_TOOLS, ("none",)),
    "parallel_tool_calls": Refused(_TOOLS),
    "response_format": Refused(_STRUCTURED, ({"type": "text"},)),
    "moderation": Refused("moderation is not offered."),
    "prediction": Refused("predicted outputs are not offered."),
    "prompt_cache_key": Ignored(),
    "prompt_cache_options": Ignored(),
    "prompt_cache_retention": Ignored(),
    "service_tier": Refused("there is one tier.", ("auto", "default")),
    "store": Refused("answers are not stored.", (False,)),
    "verbosity": Refused("the model has no such control.", ("medium",)),
    "web_search_options": Refused("there is no web search."),
    "chat_template": Refused("templates come with the model, never from a request (CVE-2025-61620)."),
    "documents": Refused("documents belong into the messages."),
    "echo": Refused("a chat answer never repeats the prompt.", (False,)),
    "add_special_tokens": _TEMPLATE_ADDS,
    "media_io_kwargs": Refused("the model reads text only."),
    "thinking_token_budget": Refused("reasoning has no budget of its own; use `max_completion_tokens`."),
}

COMPLETIONS: Mapping[str, Refused | Ignored] = {
    **_COMMON,
    "suffix": Refused("the model cannot fill in the middle."),
    "response_format": Refused(_STRUCTURED, ({"type": "text"},)),
}

_CONVERSATION = Refused("it is about `messages`, and there are none.", (False, {}))

TOKENIZE_PROMPT: Mapping[str, Refused] = {
    "add_generation_prompt": _CONVERSATION,
    "continue_final_message": _CONVERSATION,
    "chat_template_kwargs": _CONVERSATION,
}
TOKENIZE_MESSAGES: Mapping[str, Refused] = {"add_special_tokens": _TEMPLATE_ADDS}
"""Declared fields of /tokenize that mean nothing beside the other of its two inputs."""

MAX_HEADER_CHARS = 1024
"""How much of a client's names an answer's header repeats."""

NONE: Mapping[str, Refused | Ignored] = {}


def screen(extra: Mapping[str, Any], table: Mapping[str, Refused | Ignored], *, strict: bool) -> tuple[str, ...]:
    """Names of the ignored among the fields that no schema declares. Raises `UnsupportedParameter` for a refused one,
    and for an unknown one in strict mode."""
    if not extra:
        return ()
    ignored = []
    for name, value in extra.items():
        rule = table.get(name)
        match rule:
            case Refused():
                if value is not None and not any(type(value) is type(n) and value == n for n in rule.neutral):
                    raise UnsupportedParameter(f"`{name}` is not supported: {rule.why}", param=name)
            case Ignored():
                ignored.append(name)
            case None:
                if strict:
                    raise UnsupportedParameter(f"`{name[:64]}` is not a known parameter.", param=name[:64])
                ignored.append(name)
    return tuple(ignored)


def ignored_header(names: Sequence[str]) -> str:
    """`x-ignored-params`: as many of the names as fit, in characters that a header may hold, and how many more."""
    listed: list[str] = []
    num_chars = 0
    for name in names:
        shown = "".join(char if "!" <= char <= "~" and char != "," else "?" for char in name[:128])
        num_chars += len(shown) + 2
        if num_chars > MAX_HEADER_CHARS:
            return ", ".join([*listed, f"and {len(names) - len(listed)} more"])
        listed.append(shown)
    return ", ".join(listed)
