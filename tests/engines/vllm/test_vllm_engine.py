"""What the vLLM engine does beyond the conformance suite; on the suite's engine."""

from __future__ import annotations

import asyncio
import gc
import importlib
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from asking import QUESTIONS, ask, chat, choices, request
from prometheus_client.parser import text_string_to_metric_families

from forebay.engines.base import Engine
from forebay.errors import InvalidRequest
from forebay.types import Prompt

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_it_says_what_it_chose(vllm_engine: Engine) -> None:
    """Version, threads, block size, KV cache and limits are in the details."""
    info, details = vllm_engine.info, vllm_engine.info.details
    assert (info.engine, info.device, info.dtype, info.max_model_len) == ("vllm", "cpu", "float32", 1024)
    assert details["vllm"].startswith("0.3")
    assert details["threads"] >= 1
    assert info.num_slots == 64
    assert (details["block_size"], details["max_num_seqs"], details["eager"]) == (32, 64, True)
    assert details["kv_cache_tokens"] > 1024
    assert details["kv_cache_mib"] == 768


async def test_a_prefix_is_cached_for_its_tenant_alone(vllm_engine: Engine) -> None:
    """The same salt finds the prompt's full blocks again; another salt, or none, finds nothing."""
    prompt = await chat(vllm_engine, "Tell me of the river, the dam and the turbine. " * 6)
    cached = []
    for salt in ("one", "one", "two", None):
        asked = replace(request(prompt, max_tokens=1), cache_salt=salt)
        cached.append((await choices(vllm_engine, asked))[0].deltas[-1].num_cached_tokens)
    full_blocks = (len(prompt.token_ids) - 1) // 32 * 32
    assert cached == [0, full_blocks, 0, 0]


async def test_choices_do_not_count_each_others_prefix_as_cached(vllm_engine: Engine) -> None:
    """Of a prompt never seen, no choice reports cached tokens, though the later ones share the first one's."""
    prompt = await chat(vllm_engine, "Never asked before: " + "the lock and the sluice. " * 8)
    answers = await choices(vllm_engine, request(prompt, n=4, temperature=1.0, max_tokens=2))
    assert {delta.num_cached_tokens for answer in answers for delta in answer.deltas} == {0}


async def test_greedy_choices_are_all_the_same(vllm_engine: Engine) -> None:
    """vLLM refuses several greedy choices; the engine gives the one answer for each, with its logprobs."""
    prompt = await chat(vllm_engine)
    alone = await ask(vllm_engine, prompt, num_logprobs=2)
    answers = await choices(vllm_engine, request(prompt, n=3, num_logprobs=2))
    assert [(answer.text, answer.logprobs) for answer in answers] == [(alone.text, alone.logprobs)] * 3


@pytest.mark.parametrize("seed", [-1, 2**63 - 1, -(2**63)])
async def test_any_seed_is_a_seed(vllm_engine: Engine, seed: int) -> None:
    """-1, which is no seed to vLLM, and the ends of the range draw the same tokens again, for several choices too."""
    prompt = await chat(vllm_engine, QUESTIONS[1])
    first, second = [
        await choices(vllm_engine, request(prompt, n=2, temperature=1.0, seed=seed, max_tokens=6)) for _ in range(2)
    ]
    assert [answer.token_ids for answer in first] == [answer.token_ids for answer in second]


async def test_the_end_of_sequence_is_no_stop_reason(vllm_engine: Engine) -> None:
    """An answer that ends by itself says `stop` and names no token."""
    answer = await ask(vllm_engine, await chat(vllm_engine), max_tokens=64)
    assert (answer.finish_reason, answer.stop_reason) == ("stop", None)


@pytest.mark.parametrize("outside", [-1, 10**6])
async def test_ids_outside_the_vocabulary_never_reach_vllm(vllm_engine: Engine, outside: int) -> None:
    """In the prompt, as stop tokens, biased or to be decoded: a 400 that names the field, and the engine lives on."""
    prompt = await chat(vllm_engine)
    sampling: list[tuple[Prompt, dict[str, Any], str]] = [
        (Prompt((1, outside)), {}, "prompt"),
        (prompt, {"stop_token_ids": (outside,), "min_tokens": 1}, "stop_token_ids"),
        (prompt, {"logit_bias": {outside: 1.0}}, "logit_bias"),
    ]
    for asked, wanted, param in sampling:
        with pytest.raises(InvalidRequest) as refusal:
            await ask(vllm_engine, asked, **wanted)
        assert refusal.value.param == param
    with pytest.raises(InvalidRequest):
        await vllm_engine.detokenize([outside])
    with pytest.raises(InvalidRequest):
        vllm_engine.token_strings([outside])
    assert vllm_engine.health().alive


async def test_each_token_has_its_logprobs_when_deltas_merge(vllm_engine: Engine) -> None:
    """A slow consumer gets several tokens in one delta, each with its entry."""
    asked = request(await chat(vllm_engine, QUESTIONS[1]), max_tokens=20, ignore_eos=True, num_logprobs=1)
    merged = 0
    async with aclosing(vllm_engine.generate(asked)) as stream:
        async for delta in stream:
            assert tuple(entry.chosen.token_id for entry in delta.logprobs) == delta.token_ids
            merged = max(merged, len(delta.token_ids))
            await asyncio.sleep(0.3)
    assert merged > 1


async def test_vllm_makes_no_records_of_tokens_on_their_way(
    vllm_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an answer without stop strings and logprobs it makes the first and the last, and the answer is the same."""
    processing: Any = importlib.import_module("vllm.v1.engine.output_processor")
    theirs, ended = processing.RequestOutput, []

    def making(*args: Any, finished: bool, **fields: Any) -> Any:
        ended.append(finished)
        return theirs(*args, finished=finished, **fields)

    monkeypatch.setattr(processing, "RequestOutput", making)
    prompt = await chat(vllm_engine, QUESTIONS[1])
    answers = []
    wanted: list[tuple[dict[str, Any], int]] = [({}, 2), ({"num_logprobs": 1}, 20), ({"stop": ("no such text",)}, 20)]
    for sampling, num_records in wanted:
        ended.clear()
        answers.append(await ask(vllm_engine, prompt, max_tokens=20, ignore_eos=True, **sampling))
        assert ended == [False] * (num_records - 1) + [True]
    assert len({(answer.text, answer.token_ids) for answer in answers}) == 1


@pytest.mark.parametrize("num_read", [1, 20])
async def test_what_vllm_knows_of_a_request_ends_with_it(vllm_engine: Engine, num_read: int) -> None:
    """Read to its end or left in the middle: its state holds nothing that holds it, so no collection is needed."""
    kept: Any = importlib.import_module("vllm.v1.engine.output_processor").RequestState
    asked = request(await chat(vllm_engine, QUESTIONS[1]), max_tokens=20, ignore_eos=True)
    gc.collect()
    gc.disable()
    try:
        async with aclosing(vllm_engine.generate(asked)) as stream:
            num_tokens = len((await anext(stream)).token_ids)
            assert [found for found in gc.get_objects() if type(found) is kept]
            while num_tokens < num_read:
                num_tokens += len((await anext(stream)).token_ids)
        assert not [found for found in gc.get_objects() if type(found) is kept]
    finally:
        gc.enable()


async def test_its_metrics_are_vllms_alone(vllm_engine: Any) -> None:
    """The text parses and every family is vLLM's. What they count is checked where one engine lives in a process."""
    families = list(text_string_to_metric_families(vllm_engine.engine_metrics().decode()))
    assert "vllm:generation_tokens" in {family.name for family in families}
    assert all(family.name.startswith("vllm:") for family in families)
