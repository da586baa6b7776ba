"""What rows owe each other in a running engine: steps, prompts and memory, with answers as if each were alone."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

from asking import ask, choices, request, settled, until
from tiny_models import running

from forebay.types import Prompt

MIB_TOKENS = 1365
"""Tokens of KV cache in a MiB of the small Llama in float32: 3 layers, 2 heads of 16 + 16 numbers."""


def prompt(length: int, seed: int = 0) -> Prompt:
    return Prompt(tuple((seed * 31 + position * 7) % 250 for position in range(length)))


async def test_a_long_prompt_is_read_in_chunks_beside_a_stream(llama: Path) -> None:
    """A stream gets a token from every step in which a long prompt is read, whose answer is the one it gets alone."""
    async with running(llama, max_num_batched_tokens=64) as engine:
        long, short = prompt(400), prompt(20, seed=1)
        alone = await ask(engine, long, max_tokens=8, ignore_eos=True)
        before = await settled(engine)
        async with aclosing(engine.generate(request(short, max_tokens=300, ignore_eos=True))) as stream:
            await anext(stream)
            beside = await ask(engine, long, max_tokens=8, ignore_eos=True)
            load = engine.load()
        assert beside.token_ids == alone.token_ids
        num_steps = load.num_steps - before.num_steps
        assert num_steps >= 400 / 63
        # the stream's one a step, the first step's included, and the prompt's eight
        assert load.num_generated_tokens - before.num_generated_tokens == num_steps + 8


async def test_choices_of_a_request_share_its_prefill(llama: Path) -> None:
    """A prompt with several choices is computed once, at any place within a block, and every choice is its own."""
    async with running(llama) as engine:
        for length in (31, 32, 33, 70):
            alone = await ask(engine, prompt(length), max_tokens=12, ignore_eos=True)
            before = await settled(engine)
            answers = await choices(engine, request(prompt(length), n=4, max_tokens=12, ignore_eos=True))
            load = await settled(engine)
            assert load.num_prompt_tokens - before.num_prompt_tokens == length
            assert load.kv_use == 0.0
            assert [answer.token_ids for answer in answers] == [alone.token_ids] * 4
        drawn = await choices(engine, request(prompt(50), n=4, max_tokens=12, temperature=1.0, seed=1, ignore_eos=True))
        assert len({answer.token_ids for answer in drawn}) == 4


async def test_more_choices_than_slots(llama: Path) -> None:
    """Choices that find no slot beside their siblings come later, with the same answers."""
    async with running(llama, max_num_seqs=3) as engine:
        alone = await ask(engine, prompt(40), max_tokens=10, ignore_eos=True)
        answers = await choices(engine, request(prompt(40), n=7, max_tokens=10, ignore_eos=True))
        assert [answer.token_ids for answer in answers] == [alone.token_ids] * 7


async def test_rows_that_outgrow_memory_take_turns(llama: Path) -> None:
    """Answers that do not fit into the KV cache together are all completed, as if alone; memory is free at the end."""
    async with running(llama, kv_cache_memory_mib=1, max_model_len=400) as engine:
        assert MIB_TOKENS - 32 <= engine.info.details["kv_capacity_tokens"] <= MIB_TOKENS
        prompts = [prompt(30 + number, seed=number) for number in range(6)]
        alone = [await ask(engine, one, max_tokens=300, ignore_eos=True) for one in prompts]
        before = await settled(engine)
        together = await asyncio.gather(*(ask(engine, one, max_tokens=300, ignore_eos=True) for one in prompts))
        load = await settled(engine)
        assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
        # rows gave way and read their prompts again, but no token was made twice
        assert load.num_prompt_tokens - before.num_prompt_tokens > sum(len(one.token_ids) for one in prompts)
        assert load.num_generated_tokens - before.num_generated_tokens == 6 * 300
        assert load.kv_use == 0.0


async def test_memory_never_exceeds_what_was_set_aside(llama: Path) -> None:
    """However many requests come, the used share stays within 1; those without room wait and are counted."""
    async with running(llama, kv_cache_memory_mib=1, max_model_len=400) as engine:
        asked = [ask(engine, prompt(380, seed=number), max_tokens=5, ignore_eos=True) for number in range(12)]
        tasks = [asyncio.create_task(one) for one in asked]
        await until(lambda: engine.load().running > 0)
        while not all(task.done() for task in tasks):
            load = engine.load()
            assert 0.0 <= load.kv_use <= 1.0
            assert load.running <= 3
            await asyncio.sleep(0.001)
        await asyncio.gather(*tasks)


async def test_the_context_ends_an_answer(llama: Path) -> None:
    """A row ends with `length` when prompt and answer fill the context, though more tokens were asked for."""
    async with running(llama, max_model_len=48) as engine:
        answer = await ask(engine, prompt(40), max_tokens=100, ignore_eos=True)
        assert (len(answer.token_ids), answer.finish_reason) == (8, "length")
        last = await ask(engine, prompt(47), max_tokens=100, ignore_eos=True)
        assert (len(last.token_ids), last.finish_reason) == (1, "length")


async def test_times_add_up(llama: Path) -> None:
    """Queue, prefill and decode times of a choice are positive and no longer than the request took."""
    async with running(llama) as engine:
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = await ask(engine, prompt(30), max_tokens=20, ignore_eos=True)
        times = answer.deltas[-1].times
        assert times is not None
        assert min(times.queue_s, times.prefill_s, times.decode_s) >= 0
        assert 0 < times.queue_s + times.prefill_s + times.decode_s <= clock() - began
