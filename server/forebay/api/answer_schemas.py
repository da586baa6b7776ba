"""The bodies of answers, for the OpenAPI document alone: answers are built as plain dicts in `api/answers.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from forebay.types import FinishReason


class AnswerBody(BaseModel):
    """Nothing that is not declared here is sent."""

    model_config = ConfigDict(extra="forbid")


class PromptTokensDetails(AnswerBody):
    cached_tokens: int


class CompletionTokensDetails(AnswerBody):
    reasoning_tokens: int


class UsageBody(AnswerBody):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(AnswerBody):
    """`bytes` are UTF-8; where a token is a part of a character its `token` is not all there is to it."""

    token: str
    bytes: list[int]
    logprob: float


class ChatTokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(AnswerBody):
    content: list[ChatTokenLogprob]
    refusal: None


class AnswerMessage(AnswerBody):
    """`reasoning` is there if the model reasoned; by setting also under its older name."""

    role: Literal["assistant"]
    content: str
    refusal: None
    reasoning: str = ""
    reasoning_content: str = ""


class ChatChoice(AnswerBody):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None


class ChatCompletion(AnswerBody):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageBody


class CompletionLogprobs(AnswerBody):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(AnswerBody):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None


class Completion(AnswerBody):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageBody


class Model(AnswerBody):
    """`max_model_len` is unknown until the model is loaded."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["forebay"]
    root: str
    max_model_len: int | None


class ModelList(AnswerBody):
    object: Literal["list"]
    data: list[Model]


class TokenizeAnswer(AnswerBody):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeAnswer(AnswerBody):
    prompt: str


class GenerateAnswer(AnswerBody):
    text: str
    prompt: str
    tokens_generated: int
    finish_reason: FinishReason
