"""Request bodies. Pydantic ends here: routes turn these into `forebay.types`.

Caps and ranges are those of docs/guards.md; what depends on the model (vocabulary, context) is checked in
`api/sampling.py`. None always means the default, as OpenAI's clients send it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, with_config
from typing_extensions import TypedDict

from forebay.api import fields

MAX_LOGIT_BIAS = 300
INT64 = 2**63

StopString = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Scalar = bool | int | float | Annotated[str, StringConstraints(max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Strings = Annotated[list[str], Field(fail_fast=True)]
"""Long lists stop at their first mistake: a complaint about each of a million items costs seconds and gigabytes."""
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]


class Body(BaseModel):
    """A JSON body: strict types, unknown fields kept aside for `fields.screen`."""

    model_config = ConfigDict(extra="allow", strict=True, json_schema_extra={"additionalProperties": False})

    undeclared: ClassVar = fields.NONE
    """What becomes of known fields that the schema does not declare."""

    def extras(self) -> dict[str, Any]:
        """The fields that the schema does not declare, by path."""
        return self.model_extra or {}


class StreamOptions(Body):
    """`continuous_usage_stats`: usage on every chunk; `include_obfuscation`: padding against traffic analysis."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


Identifier = Annotated[str, StringConstraints(max_length=256)]
Metadata = Annotated[dict[Annotated[str, StringConstraints(max_length=64)], str], Field(max_length=16)]


class SamplingBody(Body):
    """The fields that chat and completions share."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=2, description="Smaller ones would make logits infinite."
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=MAX_LOGIT_BIAS)
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    min_tokens: int | None = Field(None, ge=0, lt=2**31)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
    stop_token_ids: TokenIds | None = Field(None, max_length=MAX_LOGIT_BIAS)
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="-1 and 0 keep the whole vocabulary.")
    min_p: float | None = Field(None, ge=0, le=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Identifier | None = None
    metadata: Metadata | None = None

    def extras(self) -> dict[str, Any]:
        extras = self.model_extra or {}
        if self.stream_options is None:
            return extras
        return {**extras, **{f"stream_options.{name}": value for name, value in self.stream_options.extras().items()}}


@with_config(ConfigDict(extra="allow", strict=True))
class ContentPart(TypedDict):
    type: Annotated[str, StringConstraints(max_length=64)]
    text: NotRequired[str]


@with_config(ConfigDict(extra="allow", strict=True))
class ChatMessage(TypedDict):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: NotRequired[str | Annotated[list[ContentPart], Field(fail_fast=True)] | None]
    name: NotRequired[Annotated[str, StringConstraints(max_length=64)] | None]


Messages = Annotated[list[ChatMessage], Field(fail_fast=True, min_length=1, max_length=4096)]


class TemplateBody(Body):
    """What decides, beside the messages, how a template renders them."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Scalar] | None = Field(None, max_length=16)


class ChatRequest(TemplateBody, SamplingBody):
    """`POST /v1/chat/completions`."""

    undeclared: ClassVar = fields.CHAT

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31, description="Wins over `max_tokens`.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    safety_identifier: Identifier | None = None
    reasoning_effort: Annotated[str, StringConstraints(max_length=32)] | None = None
    include_reasoning: bool | None = None


class CompletionRequest(SamplingBody):
    """`POST /v1/completions`."""

    undeclared: ClassVar = fields.COMPLETIONS

    prompt: str | Strings | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)


class TokenizeRequest(TemplateBody):
    """`POST /tokenize`: either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    model: str | None = None
    tokens: TokenIds = Field(max_length=1_000_000)


class GenerateRequest(Body):
    """`POST /generate`: the plain form, for a first try by hand."""

    prompt: str
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: StopString | Annotated[list[StopString], Field(max_length=4)] | None = None
