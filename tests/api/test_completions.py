"""Text completions, whole and streamed, through the official client."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx
import pytest
from openai import APIResponseValidationError, AsyncOpenAI, BadRequestError, OpenAI
from openai.types import Completion

from support.sse import read_chunks

PROMPT = "The water goes"


def say(text: str, **directives: str) -> dict[str, Any]:
    return {"metadata": {"forebay_script": text, **{f"forebay_{name}": value for name, value in directives.items()}}}


def complete(client: OpenAI, prompt: Any = PROMPT, **fields: Any) -> Completion:
    extra = {name: fields.pop(name) for name in ("metadata", "ignore_eos") if name in fields}
    return client.completions.create(model="scripted", prompt=prompt, extra_body=extra, **fields)


def stream_raw(raw: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    return read_chunks(
        raw.post("/v1/completions", json={"model": "scripted", "prompt": PROMPT, "stream": True, **fields})
    )


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    joined: dict[int, str] = defaultdict(str)
    for chunk in chunks:
        joined[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    return dict(sorted(joined.items()))


def test_a_completion_has_openai_s_shape(client: OpenAI) -> None:
    """Ids begin with `cmpl-`, the object is `text_completion`, the text continues the prompt."""
    answer = complete(client, **say(" downhill."))
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.model == "scripted"
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, " downhill.", "stop", None)
    assert choice.to_dict()["stop_reason"] is None
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_sixteen_tokens_are_the_default(client: OpenAI) -> None:
    """OpenAI's default `max_tokens` for this route."""
    answer = complete(client, ignore_eos=True)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert answer.choices[0].finish_reason == "length"


async def test_the_async_client_is_served_alike(client: OpenAI, async_client: AsyncOpenAI) -> None:
    """The async client gets the answer that the sync one gets."""
    answer = await async_client.completions.create(model="scripted", prompt=PROMPT, temperature=0)
    assert answer.choices == complete(client, temperature=0).choices


def test_prompts_come_as_text_or_token_ids(client: OpenAI, raw: httpx.Client) -> None:
    """A string, a list of strings, token ids and lists of token ids mean the same prompts."""
    ids = [raw.post("/tokenize", json={"prompt": prompt}).json()["tokens"] for prompt in (PROMPT, "In the end")]
    one = [complete(client, prompt, temperature=0).choices for prompt in (PROMPT, [PROMPT], ids[0], [ids[0]])]
    assert one[0] == one[1] == one[2] == one[3]
    two = [complete(client, prompt, temperature=0).choices for prompt in ([PROMPT, "In the end"], ids)]
    assert two[0] == two[1]
    assert two[0][0] == one[0][0]


def test_choices_are_numbered_prompt_by_prompt(client: OpenAI, raw: httpx.Client) -> None:
    """Choice j of prompt i has index i * n + j, whole and streamed."""
    prompts = ["One", "Two", "Three"]
    fields: dict[str, Any] = {"n": 2, "seed": 11, "max_tokens": 6}
    answer = complete(client, prompts, **fields)
    assert [choice.index for choice in answer.choices] == list(range(6))
    alone = [choice.text for prompt in prompts for choice in complete(client, prompt, **fields).choices]
    assert len(set(alone)) == 6
    assert [choice.text for choice in answer.choices] == alone
    assert list(texts(stream_raw(raw, prompt=prompts, **fields)).values()) == alone


def test_usage_counts_each_prompt_once(client: OpenAI) -> None:
    """Prompt tokens of all prompts, completion tokens of all choices."""
    each = [complete(client, prompt, max_tokens=1).usage for prompt in ("One", "Two and three")]
    answer = complete(client, ["One", "Two and three"], n=3, max_tokens=4, ignore_eos=True)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(usage.prompt_tokens for usage in each if usage)
    assert answer.usage.completion_tokens == 2 * 3 * 4


def test_echo_repeats_the_prompt(client: OpenAI, raw: httpx.Client) -> None:
    """`echo` puts the prompt before each choice, also where it was given as token ids, and also streamed, once."""
    ids = raw.post("/tokenize", json={"prompt": PROMPT}).json()["tokens"]
    for prompt in (PROMPT, ids):
        answer = complete(client, prompt, echo=True, n=2, **say(" down."))
        assert [choice.text for choice in answer.choices] == [PROMPT + " down."] * 2
        chunks = stream_raw(raw, prompt=prompt, echo=True, n=2, **say(" down."))
        assert texts(chunks) == {0: PROMPT + " down.", 1: PROMPT + " down."}
    assert texts(stream_raw(raw, echo=True, **say(""))) == {0: PROMPT}


def test_echo_counts_the_prompt_as_prompt(client: OpenAI) -> None:
    """Repeating the prompt generates nothing, so usage stays as it was."""
    plain, echoed = (complete(client, echo=echo, temperature=0).usage for echo in (False, True))
    assert plain is not None
    assert echoed is not None
    assert (plain.prompt_tokens, plain.completion_tokens) == (echoed.prompt_tokens, echoed.completion_tokens)


def test_chunks_are_text_completions(raw: httpx.Client) -> None:
    """Chunks carry the whole answer's object and one id; each choice has one finish, on its last chunk."""
    chunks = stream_raw(raw, n=2, max_tokens=20, seed=2, metadata={"forebay_burst": "1"})
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["id"].startswith("cmpl-")
    for index in (0, 1):
        *before, last = (chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index)
        assert before
        assert all(choice["text"] and choice["finish_reason"] is None for choice in before)
        assert last["finish_reason"] in ("stop", "length")
        assert last["stop_reason"] is None


def test_a_stream_adds_up_to_the_whole_answer(client: OpenAI, raw: httpx.Client) -> None:
    """Chunks concatenate to the text of the whole answer."""
    script = say("Grüße 🌊 über\r\n dem Wasser. 水\n\n")
    assert (
        texts(stream_raw(raw, **script, max_tokens=200))[0]
        == complete(client, **script, max_tokens=200).choices[0].text
    )


def test_the_client_iterates_a_stream(server: Any, client: OpenAI) -> None:
    """The client reads the chunks. Its type has no unfinished choice (OpenAI's own server sends null there too), so
    strict validation objects to that one field; all else is validated here with the field filled in."""
    fields: dict[str, Any] = {
        "model": "scripted",
        "prompt": PROMPT,
        "stream": True,
        "extra_body": say(" down the hill.", inter_token_ms="5"),
    }
    with (
        OpenAI(base_url=server.base_url, api_key="unused", max_retries=0) as lenient,
        lenient.completions.create(**fields, logprobs=1) as chunks,
    ):
        received = list(chunks)
    assert "".join(chunk.choices[0].text for chunk in received) == " down the hill."
    assert received[-1].choices[0].finish_reason == "stop"
    for chunk in received:
        filled = chunk.to_dict()
        for choice in filled["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        Completion.model_validate(filled, strict=True)
    with client.completions.create(**fields) as chunks, pytest.raises(APIResponseValidationError) as caught:
        list(chunks)
    assert "finish_reason" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        [],
        [""],
        ["text", ""],
        [[]],
        [[65], []],
        None,
        7,
        [65, "mixed"],
        [-1],
        [10**6],
        [1.5],
        {"text": "x"},
        [["x"]],
    ],
    ids=repr,
)
def test_prompts_that_are_none_are_refused(client: OpenAI, prompt: Any) -> None:
    """Nothing to continue, or not in one of the four forms: a 400 that names `prompt`."""
    with pytest.raises(BadRequestError) as caught:
        complete(client, prompt)
    assert caught.value.param is not None
    assert caught.value.param.startswith("prompt")
    assert caught.value.code == "invalid_value"


def test_a_missing_prompt_is_refused(raw: httpx.Client) -> None:
    """`prompt` is required here, as the client's type says."""
    answer = raw.post("/v1/completions", json={"model": "scripted"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize("extra", [{"suffix": "x"}, {"best_of": 2}, {"echo": True, "logprobs": 1}], ids=repr)
def test_what_the_model_cannot_do_is_refused(client: OpenAI, extra: dict[str, Any]) -> None:
    """Filling in the middle, ranking, and log-probabilities of the prompt."""
    with pytest.raises(BadRequestError) as caught:
        complete(client, **extra)
    assert caught.value.param == next(iter(extra))


def test_the_default_limit_gives_way_to_the_context(client: OpenAI) -> None:
    """A limit nobody asked for is no reason to refuse: near the end of the context the answer is shorter."""
    max_model_len = client.models.list().data[0].to_dict()["max_model_len"]
    assert isinstance(max_model_len, int)
    answer = complete(client, [65] * (max_model_len - 3), ignore_eos=True)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    assert answer.choices[0].finish_reason == "length"


def test_what_does_not_fit_the_context_is_refused(client: OpenAI) -> None:
    """A prompt that leaves no room is `context_length_exceeded` of `prompt`; a limit beyond it, of `max_tokens`."""
    max_model_len = client.models.list().data[0].to_dict()["max_model_len"]
    assert isinstance(max_model_len, int)
    for num_tokens, fields, param in (
        (max_model_len, {}, "prompt"),
        (max_model_len - 3, {"max_tokens": 4}, "max_tokens"),
    ):
        with pytest.raises(BadRequestError) as caught:
            complete(client, [65] * num_tokens, **fields)
        assert caught.value.code == "context_length_exceeded"
        assert caught.value.param == param
