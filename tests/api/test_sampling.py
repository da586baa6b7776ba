"""How an answer is drawn and where it stops, as clients ask for it; what each engine makes of it: tests/engines."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat.chat_completion import Choice

from forebay.api.sampling import plain_sampling
from forebay.api.schemas import GenerateRequest
from forebay.engines.base import EngineInfo

ASK: list[Any] = [{"role": "user", "content": "Where does the water go?"}]
EXTRA = (
    "min_tokens",
    "repetition_penalty",
    "ignore_eos",
    "top_k",
    "min_p",
    "stop_token_ids",
    "include_stop_str_in_output",
)


def ask(client: OpenAI, **fields: Any) -> Choice:
    extra = {name: fields.pop(name) for name in EXTRA if name in fields}
    return client.chat.completions.create(model="scripted", messages=ASK, extra_body=extra, **fields).choices[0]


def say(text: str) -> dict[str, str]:
    return {"forebay_script": text, "forebay_burst": "1"}


@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        (" three", "one two", " three"),
        ([" three"], "one two", " three"),
        (["four", "two th"], "one ", "two th"),
        ("e two", "on", "e two"),
        (["absent", "x"], "one two three four", None),
    ],
    ids=str,
)
def test_stop_strings_end_the_answer_before_themselves(
    client: OpenAI, stop: Any, text: str, reason: str | None
) -> None:
    """The text ends before the first that appears, across tokens; `stop_reason` tells which one it was."""
    choice = ask(client, metadata=say("one two three four"), stop=stop)
    assert choice.message.content == text
    assert choice.finish_reason == "stop"
    assert choice.to_dict()["stop_reason"] == reason


def test_the_stop_string_can_be_kept(client: OpenAI) -> None:
    """`include_stop_str_in_output` ends the text after it."""
    choice = ask(client, metadata=say("one two three"), stop=" two", include_stop_str_in_output=True)
    assert choice.message.content == "one two"


def test_a_stop_token_ends_the_answer(client: OpenAI) -> None:
    """`stop_token_ids`: the reason is the token's id, and its text is left out."""
    choice = ask(client, metadata=say("one. two"), stop_token_ids=[ord("."), ord("!")])
    assert choice.message.content == "one"
    assert choice.to_dict()["stop_reason"] == ord(".")


def test_zero_temperature_repeats_itself(client: OpenAI) -> None:
    """Greedy answers are equal, whatever the seed."""
    texts = {ask(client, temperature=0, seed=seed, max_tokens=30).message.content for seed in (None, 1, 2)}
    assert len(texts) == 1


def test_a_seed_repeats_its_draw(client: OpenAI) -> None:
    """The same seed gives the same answer, another seed another, over all of int64."""
    texts = [
        ask(client, seed=seed, max_tokens=20, temperature=1.3).message.content
        for seed in (7, 7, 8, -(2**63), 2**63 - 1)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 4


def test_min_tokens_and_ignore_eos_keep_an_answer_going(client: OpenAI) -> None:
    """The load-test fields: no end before `min_tokens`, none at all with `ignore_eos`."""
    short = client.chat.completions.create(
        model="scripted", messages=ASK, metadata=say("Done."), extra_body={"min_tokens": 30}, max_tokens=40
    )
    assert short.usage is not None
    assert short.usage.completion_tokens >= 30
    full = client.chat.completions.create(
        model="scripted", messages=ASK, metadata=say("Done."), extra_body={"ignore_eos": True}, max_tokens=40
    )
    assert full.usage is not None
    assert full.usage.completion_tokens == 40
    assert full.choices[0].finish_reason == "length"


def test_logit_bias_forces_and_forbids(client: OpenAI) -> None:
    """+100 makes a token certain, -100 impossible."""
    forced = ask(client, logit_bias={str(ord("Z")): 100}, max_tokens=5, temperature=0)
    assert forced.message.content == "ZZZZZ"
    free = ask(client, max_tokens=1, temperature=0, logprobs=True)
    assert free.logprobs is not None
    assert free.logprobs.content is not None
    first = free.logprobs.content[0]
    assert first.bytes is not None
    token_ids = client.post("/../tokenize", body={"prompt": bytes(first.bytes).decode()}, cast_to=dict[str, Any])[
        "tokens"
    ]
    assert len(token_ids) == 1
    forbidden = ask(client, max_tokens=1, temperature=0, logit_bias={str(token_ids[0]): -100})
    assert forbidden.message.content != free.message.content


def test_penalties_change_a_greedy_answer(client: OpenAI) -> None:
    """Tokens that came before become less likely, by each penalty's own rule."""
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 200, "ignore_eos": True}
    plain = ask(client, **fields).message.content
    penalised = [
        ask(client, **fields, **{penalty: value}).message.content
        for penalty, value in (("frequency_penalty", 2.0), ("presence_penalty", 2.0), ("repetition_penalty", 1.5))
    ]
    assert len({plain, *penalised}) == 4


def test_narrow_filters_leave_the_greedy_token(client: OpenAI) -> None:
    """`top_k: 1`, a tiny `top_p` and `min_p: 1` each leave nothing but the most likely token."""
    greedy = ask(client, temperature=0, max_tokens=20).message.content
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert ask(client, temperature=2.0, max_tokens=20, **narrow).message.content == greedy
    wide = {ask(client, temperature=2.0, max_tokens=20, top_k=top_k, seed=1).message.content for top_k in (-1, 0)}
    assert len(wide) == 1
    assert greedy not in wide


@pytest.mark.parametrize(
    "field",
    ["temperature", "top_p", "n", "seed", "stop", "max_tokens", "frequency_penalty", "logit_bias", "stream"],
)
def test_null_means_the_default(client: OpenAI, field: str) -> None:
    """Clients send null for what they leave to the server."""
    given: dict[str, Any] = {"max_tokens": 4, field: None}
    answer = client.post(
        "/chat/completions", body={"model": "scripted", "messages": ASK, **given}, cast_to=dict[str, Any]
    )
    assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_completion_tokens": 10**6}, "max_completion_tokens"),
        ({"max_tokens": 10**6}, "max_tokens"),
        ({"stop_token_ids": [10**6]}, "stop_token_ids"),
        ({"logit_bias": {"1000000": 1}}, "logit_bias"),
        ({"logit_bias": {"foo": 0}}, "logit_bias"),
    ],
    ids=str,
)
def test_what_contradicts_itself_or_the_model_is_refused(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    """Limits against each other, the context and the vocabulary; the ranges themselves are tests/guards' matter."""
    with pytest.raises(BadRequestError) as caught:
        ask(client, **fields)
    assert caught.value.param == param


def test_a_zero_below_zero_is_a_zero() -> None:
    """JSON has both, and what is greedy with one is the same question with the other."""
    info = EngineInfo("scripted", "m", None, 4096, 1000, 4, "cpu", "float32")
    body = GenerateRequest(prompt="x", temperature=-0.0)
    sampling = plain_sampling(body, info, num_prompt_tokens=1, default_max_tokens=4)
    assert str(sampling.temperature) == "0.0"
