"""What a body asks for, checked against the model that runs: vocabulary, context, caps."""

from __future__ import annotations

from forebay.api.schemas import ChatRequest, CompletionRequest, GenerateRequest, SamplingBody
from forebay.engines.base import EngineInfo
from forebay.errors import ContextTooLong, InvalidRequest
from forebay.types import Sampling


def check_options(body: SamplingBody, *, max_choices: int) -> None:
    """What can be refused before the prompt is rendered."""
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed with `stream: true`.", param="stream_options")
    if (body.n or 1) > max_choices:
        raise InvalidRequest(f"`n` must be at most {max_choices}.", param="n")
    if isinstance(body, ChatRequest) and body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` is only allowed with `logprobs: true`.", param="top_logprobs")
    if isinstance(body, CompletionRequest) and body.echo and body.logprobs is not None:
        raise InvalidRequest("`echo` with `logprobs` would need log-probabilities of the prompt.", param="echo")


def to_sampling(
    body: SamplingBody,
    info: EngineInfo,
    *,
    num_prompt_tokens: int,
    max_tokens: int | None,
    max_tokens_param: str = "max_tokens",
    default_max_tokens: int | None = None,
    num_logprobs: int | None,
) -> Sampling:
    """Without `max_tokens` the default, without that what the context leaves. Raises `InvalidRequest` or
    `ContextTooLong`."""
    prompt_param = "messages" if isinstance(body, ChatRequest) else "prompt"
    max_tokens = fit_context(
        info, num_prompt_tokens, max_tokens, default_max_tokens, param=max_tokens_param, prompt_param=prompt_param
    )
    if (body.min_tokens or 0) > max_tokens:
        raise InvalidRequest(
            f"`min_tokens` must be at most the {max_tokens} tokens that may be generated.", param="min_tokens"
        )
    stop_token_ids = tuple(body.stop_token_ids or ())
    if stop_token_ids and max(stop_token_ids) >= info.vocab_size:
        raise InvalidRequest(f"`stop_token_ids` must be below {info.vocab_size}.", param="stop_token_ids")
    return Sampling(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        temperature=1.0 if body.temperature is None else body.temperature or 0.0,  # JSON has a zero below zero
        top_p=1.0 if body.top_p is None else body.top_p,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        min_p=body.min_p or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        repetition_penalty=body.repetition_penalty or 1.0,
        seed=body.seed,
        stop=to_stop(body.stop),
        stop_token_ids=stop_token_ids,
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        ignore_eos=bool(body.ignore_eos),
        skip_special_tokens=body.skip_special_tokens is not False,
        num_logprobs=num_logprobs,
        logit_bias=_to_logit_bias(body.logit_bias, info.vocab_size) if body.logit_bias else {},
    )


def plain_sampling(
    body: GenerateRequest, info: EngineInfo, *, num_prompt_tokens: int, default_max_tokens: int
) -> Sampling:
    return Sampling(
        max_tokens=fit_context(
            info, num_prompt_tokens, body.max_tokens, default_max_tokens, param="max_tokens", prompt_param="prompt"
        ),
        temperature=1.0 if body.temperature is None else body.temperature or 0.0,  # JSON has a zero below zero
        top_p=1.0 if body.top_p is None else body.top_p,
        stop=to_stop(body.stop),
    )


def to_stop(stop: str | list[str] | None) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def fit_context(
    info: EngineInfo,
    num_prompt_tokens: int,
    max_tokens: int | None,
    default: int | None,
    *,
    param: str,
    prompt_param: str,
) -> int:
    """Tokens that may be generated; nobody asked for the default, so it gives way to the context.

    Raises `ContextTooLong` where prompt and answer cannot both fit.
    """
    room = info.max_model_len - num_prompt_tokens
    if room < 1:
        raise ContextTooLong(
            f"The prompt has {num_prompt_tokens} tokens; the model's context holds {info.max_model_len}, "
            "answer included.",
            param=prompt_param,
        )
    if max_tokens is None:
        return room if default is None else min(default, room)
    if max_tokens > room:
        raise ContextTooLong(
            f"The prompt has {num_prompt_tokens} tokens and `{param}` asks for {max_tokens}; "
            f"the model's context holds {info.max_model_len}.",
            param=param,
        )
    return max_tokens


def _to_logit_bias(bias: dict[str, float], vocab_size: int) -> dict[int, float]:
    out = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and int(key) < vocab_size):
            raise InvalidRequest(f"`logit_bias` keys must be token ids below {vocab_size}.", param="logit_bias")
        out[int(key)] = value
    return out
