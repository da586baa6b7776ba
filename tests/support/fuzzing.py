"""What schemathesis loads beside our OpenAPI document: the rules that a JSON schema cannot say.

`tests/guards/test_fuzzing.py` names this module in `SCHEMATHESIS_HOOKS`.
"""

from __future__ import annotations

import re
from typing import Any

import schemathesis

RULES = (
    # the model: its vocabulary, its context, its template
    r"must be token ids below|must be below|is outside the vocabulary",
    r"the model's context holds",
    r"The prompt is empty",
    r"the model's template does not read it",
    # two fields together
    r"`stream_options` is only allowed with `stream: true`",
    r"`top_logprobs` is only allowed with `logprobs: true`",
    r"`min_tokens` must be at most",
    r"`echo` with `logprobs` would need",
    r"`continue_final_message`",
    r"it is about `messages`, and there are none|the chat template writes the special tokens",
    r"`messages\[\d+\]\.reasoning` and `messages\[\d+\]\.reasoning_content` differ",
    r"`end_time` must be later than|`limit` must be a whole number from 1 to (31|168)\b",
    # what only an answer can give
    r"`page` is not the `next_page`",
    # metadata is the scripted engine's to read
    r"Metadata forebay_",
    # UTF-8 cannot carry half a character
    r"surrogate",
    # JSON Schema has no word for unknown fields of an assistant's message only
    r"`messages\[\d+\]\.(reasoning|reasoning_content)` is not a known field",
)
ALLOWED = re.compile("|".join(RULES))
VOCAB_SIZE = 478
MAX_TOKENS = 16


@schemathesis.hook
def before_call(ctx: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Brings valid requests within the model's vocabulary and context, where they say more than another refusal."""
    body = case.body
    if not _is_positive(case) or not isinstance(body, dict):
        return
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        if isinstance(body.get(name), int):
            body[name] = min(body[name], MAX_TOKENS if name != "min_tokens" else 1)
    if case.path in ("/v1/chat/completions", "/v1/completions", "/generate") and body.get("max_tokens") is None:
        body["max_tokens"] = MAX_TOKENS
    for name in ("prompt", "tokens", "stop_token_ids"):
        if name in body:
            body[name] = _fold(body[name])
    if isinstance(body.get("logit_bias"), dict):
        body["logit_bias"] = {str(int(key) % VOCAB_SIZE): value for key, value in body["logit_bias"].items()}
    if body.get("stream") is not True:
        body.pop("stream_options", None)
    if body.get("logprobs") is not True and case.path == "/v1/chat/completions":
        body.pop("top_logprobs", None)


@schemathesis.check
def valid_requests_are_accepted(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """schemathesis' own check knows no rule but the schema's."""
    if response.status_code != 400 or not _is_positive(case):
        return
    message = response.json()["error"]["message"]
    if "Input should be a valid" in message and _has_whole_float(case.body):
        return  # JSON Schema counts 1.0 among the integers
    assert ALLOWED.search(message), f"a request that fits the schema was refused: {message}"


def _is_positive(case: schemathesis.Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _fold(value: Any) -> Any:
    """Token ids, wherever they stand, within the vocabulary."""
    if isinstance(value, list):
        return [_fold(item) for item in value]
    return value % VOCAB_SIZE if isinstance(value, int) else value


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(_has_whole_float, value))
    return isinstance(value, float) and value.is_integer()
