"""Requests that run together: as if alone, and free to leave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from asking import FREE_TOKENS, MAX_TOP, QUESTIONS, Answer, ask, chat, divergence_gap, mixed, request, settled, until

from forebay.engines.base import Engine
from forebay.types import GenerationRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAX_GAP_FP32 = 0.05
NUM_MIXED = 50
LOOKED_AT = [number for number in range(NUM_MIXED) if number % 7 in (0, 3, 5)]
"""Some of every kind: alone they take longer than all together."""
NUM_SLOTS = 64


@pytest.mark.timeout(300)
async def test_fifty_together_answer_as_alone(engine: Engine) -> None:
    """At least 90 % of those looked at are the same tokens; where one differs, the two were all but equally likely.

    Sampled and penalised requests run in the same batch, so that every kind of row meets every other.
    """
    alone = [await mixed(engine, number) for number in LOOKED_AT]
    noise = [
        ask(engine, await chat(engine), temperature=1.0, seed=seed, top_p=0.9, presence_penalty=1.0, n=1)
        for seed in range(6)
    ]
    all_answers = await asyncio.gather(*(mixed(engine, number) for number in range(NUM_MIXED)), *noise)
    together = [all_answers[number] for number in LOOKED_AT]
    gaps = [divergence_gap(solo, other.token_ids) for solo, other in zip(alone, together, strict=True)]
    same = [solo.token_ids == other.token_ids for solo, other in zip(alone, together, strict=True)]
    assert max(gaps) <= MAX_GAP_FP32
    assert sum(same) >= 0.9 * len(same)
    for solo, other, equal in zip(alone, together, same, strict=True):
        if equal:
            assert (solo.text, solo.finish_reason, solo.stop_reason) == (
                other.text,
                other.finish_reason,
                other.stop_reason,
            )


async def test_requests_beyond_the_slots_wait_and_are_served(engine: Engine) -> None:
    """More choices than slots: the load shows them waiting and never more running than slots, and all are answered."""
    prompt = await chat(engine)
    paced = {"forebay_inter_token_ms": "5"}
    asked = [request(prompt, n=8, temperature=1.0, max_tokens=6, ignore_eos=True, metadata=paced) for _ in range(9)]
    tasks = [asyncio.create_task(drain(engine, one)) for one in asked]
    most_running = most_waiting = 0
    while not all(task.done() for task in tasks):
        load = engine.load()
        most_running, most_waiting = max(most_running, load.running), max(most_waiting, load.waiting)
        await asyncio.sleep(0.002)
    assert most_waiting > 0
    assert most_running == NUM_SLOTS
    assert await asyncio.gather(*tasks) == [8 * 6] * 9


async def test_of_those_who_wait_the_lowest_priority_number_goes_first(engine: Engine) -> None:
    """With all slots taken but one, requests that came later but rank before others are answered before them."""
    prompt = await chat(engine)
    paced = {"forebay_inter_token_ms": "20"}
    filling = {"temperature": 1.0, "max_tokens": 400, "ignore_eos": True, "metadata": paced}
    tasks = [
        asyncio.create_task(drain(engine, request(prompt, n=n, priority=-1, **filling)))
        for n in (8,) * (NUM_SLOTS // 8 - 1) + (7,)
    ]
    await until(lambda: engine.load().running == NUM_SLOTS - 1)
    last = filling | {"max_tokens": 4}
    tasks.append(asyncio.create_task(drain(engine, request(prompt, priority=-1, **last))))
    await until(lambda: engine.load().running == NUM_SLOTS)
    answered: list[int] = []

    async def waiting(priority: int) -> None:
        await drain(engine, request(prompt, priority=priority, max_tokens=1, metadata=paced))
        answered.append(priority)

    ranked = []
    for number, priority in enumerate((2, 1, 0), 1):
        ranked.append(asyncio.create_task(waiting(priority)))
        await until(lambda: engine.load().waiting == number)  # noqa: B023 - awaited within the iteration
    await asyncio.gather(*ranked)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await settled(engine)
    assert answered == [0, 1, 2]


async def test_a_closed_request_leaves_at_the_next_step(engine: Engine) -> None:
    """Closed before the first token or after any, a request frees its slot at the next step; others go on untouched."""
    paced = {"forebay_first_token_ms": "20", "forebay_inter_token_ms": "5"}
    prompt = await chat(engine, QUESTIONS[1])
    staying = {"max_tokens": 32, "ignore_eos": True, "num_logprobs": MAX_TOP, "metadata": paced}
    alone = await ask(engine, prompt, **staying)
    for num_tokens in (0, 1, 2, 5):
        await settled(engine)
        other = asyncio.create_task(ask(engine, prompt, **staying))
        await until(lambda: engine.load().running == 1)
        await leave_after(engine, request(prompt, max_tokens=400, ignore_eos=True, metadata=paced), num_tokens)
        closed_at = engine.load().num_steps
        await until(lambda: engine.load().num_steps >= closed_at + 2)  # noqa: B023 - awaited within the iteration
        assert engine.load().running == 1
        assert not other.done()
        answer = await other
        assert len(answer.token_ids) == 32
        assert divergence_gap(alone, answer.token_ids) <= MAX_GAP_FP32


async def test_a_closed_request_generates_no_more(engine: Engine) -> None:
    """After an abort the counters come to rest far below what the request had asked for, and its stream has counted
    what was generated for it, but for what vLLM drops: at most a step in its process and one on the way."""
    before = await settled(engine)
    slow = {"forebay_inter_token_ms": "5"}
    leaving = request(await chat(engine), n=2, max_tokens=300, ignore_eos=True, temperature=1.0, metadata=slow)
    async with aclosing(engine.generate(leaving)) as stream:
        await anext(aiter(stream))
    counted = stream.num_tokens
    after = await settled(engine)
    generated = after.num_generated_tokens - before.num_generated_tokens
    assert generated < 100
    dropped = 2 * leaving.num_choices if engine.info.engine == "vllm" else 0
    assert generated - dropped <= counted <= generated


async def test_a_slow_consumer_gets_merged_deltas(engine: Engine, free: Answer) -> None:
    """What nobody takes merges: after the first delta and the engine's end the rest is one delta, with nothing lost."""
    prompt = await chat(engine, QUESTIONS[1])
    async with aclosing(engine.generate(request(prompt, max_tokens=FREE_TOKENS, ignore_eos=True))) as stream:
        first = await anext(aiter(stream))
        await settled(engine)
        await asyncio.sleep(0.2)  # what an engine in another process sent last may still be on its way
        rest = [delta async for delta in stream]
    answer = Answer((first, *rest))
    assert len(rest) == 1
    assert (answer.token_ids, answer.text) == (free.token_ids, free.text)


async def drain(engine: Engine, asked: GenerationRequest) -> int:
    """Takes everything; the number of tokens that came."""
    num_tokens = 0
    async with aclosing(engine.generate(asked)) as stream:
        async for delta in stream:
            num_tokens += len(delta.token_ids)
    return num_tokens


async def leave_after(engine: Engine, asked: GenerationRequest, num_tokens: int) -> None:
    """Closes the request as soon as so many tokens have come; 0: while it waits for the first."""
    if num_tokens == 0:
        waiting = asyncio.create_task(drain(engine, asked))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        return
    received = 0
    async with aclosing(engine.generate(asked)) as stream:
        async for delta in stream:
            received += len(delta.token_ids)
            if received >= num_tokens:
                return
