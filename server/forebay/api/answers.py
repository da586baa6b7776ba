"""Whole answers: deltas gathered into choices, choices into OpenAI's bodies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay.api.logprobs import chat_logprobs, completion_logprobs
from forebay.generation import Generation
from forebay.types import FinishReason, TokenLogprob, Usage


@dataclass(slots=True)
class Choice:
    """One finished choice."""

    texts: list[str] = field(default_factory=list)
    reasonings: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def reasoning(self) -> str:
        return "".join(self.reasonings)


async def collect(generation: Generation, num_choices: int) -> list[Choice]:
    """Reads the generation to its end."""
    choices = [Choice() for _ in range(num_choices)]
    with generation.patience:
        async for delta in generation:
            choice = choices[delta.index]
            choice.texts.append(delta.text)
            choice.reasonings.append(delta.reasoning)
            choice.logprobs += delta.logprobs
            if delta.finish_reason is not None:
                choice.finish_reason, choice.stop_reason = delta.finish_reason, delta.stop_reason
    return choices


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def reasoning_fields(text: str, *, reasoning_content: bool) -> dict[str, str]:
    """Reasoning under the names clients read: `reasoning`, and by setting the older `reasoning_content`."""
    return {"reasoning": text, "reasoning_content": text} if reasoning_content else {"reasoning": text}


def chat_body(
    head: dict[str, Any], choices: Sequence[Choice], usage: Usage, *, logprobs: bool, reasoning_content: bool
) -> dict[str, Any]:
    return {
        **head,
        "choices": [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.text,
                    "refusal": None,
                    **(
                        reasoning_fields(choice.reasoning, reasoning_content=reasoning_content)
                        if choice.reasoning
                        else {}
                    ),
                },
                "logprobs": chat_logprobs(choice.logprobs) if logprobs else None,
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
            }
            for index, choice in enumerate(choices)
        ],
        "usage": usage_body(usage),
    }


def completion_body(
    head: dict[str, Any], choices: Sequence[Choice], echoes: Sequence[str], usage: Usage, *, logprobs: bool
) -> dict[str, Any]:
    """`echoes[i]` is put before choice i's text."""
    return {
        **head,
        "choices": [
            {
                "index": index,
                "text": echo + choice.text,
                "logprobs": completion_logprobs(choice.logprobs, offset=0) if logprobs else None,
                "finish_reason": choice.finish_reason,
                "stop_reason": choice.stop_reason,
            }
            for index, (choice, echo) in enumerate(zip(choices, echoes, strict=True))
        ],
        "usage": usage_body(usage),
    }
