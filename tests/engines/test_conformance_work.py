"""What streams say their engine did, beside the engine's own counters: the two must agree however requests end."""

from __future__ import annotations

import asyncio

import pytest
from asking import chat, request, settled

from forebay.engines.base import Engine
from forebay.types import CountedDeltas, GenerationRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read(stream: CountedDeltas, num_tokens: int | None) -> CountedDeltas:
    """Until so many tokens were made, or to the end; then closes. 0 leaves before the first read."""
    try:
        if num_tokens != 0:
            async for _ in stream:
                if num_tokens is not None and stream.num_tokens >= num_tokens:
                    break
    finally:
        await stream.aclose()
    return stream


async def check_agreement(engine: Engine, asked: list[tuple[GenerationRequest, int | None]]) -> None:
    """All at once."""
    before = await settled(engine)
    streams = await asyncio.gather(*(read(engine.generate(one), num_tokens) for one, num_tokens in asked))
    after = await settled(engine)
    works = [stream.work for stream in streams]
    assert after.num_generated_tokens - before.num_generated_tokens == sum(work.generated_tokens for work in works)
    beyond = after.num_prompt_tokens - before.num_prompt_tokens - sum(work.prompt_tokens for work in works)
    assert 0 <= beyond <= sum(work.untold_prompt_tokens for work in works)
    assert sum(work.prompt_tokens for work in works) > 0


async def test_of_answers_that_were_heard_out(engine: Engine) -> None:
    """New prompts and such as were seen, one choice and several, greedy ones that an engine may compute once."""
    prompts = [await chat(engine, f"Tell me of the water, part {number}. " + "Please. " * 20) for number in range(3)]
    await check_agreement(
        engine,
        [
            (request(prompts[0], max_tokens=7, ignore_eos=True), None),
            (request(prompts[0], max_tokens=1), None),
            (request(prompts[1], n=3, temperature=1.0, seed=1, max_tokens=6), None),
            (request(prompts[2], n=2, max_tokens=5), None),
            (request(prompts[2], max_tokens=30, stop=("a", "e", "i")), None),
        ],
    )
    await check_agreement(engine, [(request(prompts[0], max_tokens=4), None)])


async def test_of_answers_that_were_left(engine: Engine) -> None:
    """Before the first read, while the prompt is read, after some tokens, with others that go on."""
    prompts = [await chat(engine, f"Tell me of the sea, part {number}. " + "Please. " * 20) for number in range(4)]
    slow = {"forebay_inter_token_ms": "2"}
    longer = {"max_tokens": 90, "ignore_eos": True, "metadata": slow}
    await check_agreement(
        engine,
        [
            (request(prompts[0], **longer), 0),
            (request(prompts[1], **longer), 1),
            (request(prompts[2], **longer), 9),
            (request(prompts[3], n=2, temperature=1.0, **longer), 5),
            (request(prompts[0], max_tokens=20, ignore_eos=True), None),
        ],
    )
