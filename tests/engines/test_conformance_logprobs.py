"""What an engine says about the likelihood of its tokens."""

from __future__ import annotations

import math

import pytest
from asking import MAX_TOP, QUESTIONS, ask, chat, choices, request

from forebay.engines.base import Engine

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_logprobs_are_there_when_asked_for(engine: Engine) -> None:
    """None gives none, 0 the chosen token's alone, k the k best as well, one entry a token."""
    prompt = await chat(engine)
    for num_logprobs in (None, 0, 1, 5, MAX_TOP):
        answer = await ask(engine, prompt, max_tokens=5, ignore_eos=True, num_logprobs=num_logprobs)
        expected = [] if num_logprobs is None else [num_logprobs] * 5
        assert [len(at.top) for at in answer.logprobs] == expected
        for delta in answer.deltas:
            assert len(delta.logprobs) in (0, len(delta.token_ids))


@pytest.mark.parametrize("heat", [{"temperature": 0.0}, {"temperature": 1.3, "seed": 4}], ids=["greedy", "hot"])
async def test_logprobs_are_a_distribution(engine: Engine, heat: dict[str, float]) -> None:
    """Finite, at most 0, sorted, distinct, summing to at most 1; the chosen token agrees with its place among them."""
    answer = await ask(engine, await chat(engine, QUESTIONS[1]), ignore_eos=True, num_logprobs=MAX_TOP, **heat)
    for at, token_id in zip(answer.logprobs, answer.token_ids, strict=True):
        values = [alternative.logprob for alternative in at.top]
        assert values == sorted(values, reverse=True)
        assert all(math.isfinite(value) and value <= 0.0 for value in (*values, at.chosen.logprob))
        assert len({alternative.token_id for alternative in at.top}) == MAX_TOP
        assert math.fsum(map(math.exp, values)) <= 1.0 + 1e-4
        assert at.chosen.token_id == token_id
        listed = [alternative for alternative in at.top if alternative.token_id == token_id]
        assert listed == [at.chosen] if listed else at.chosen.logprob <= values[-1] + 1e-6


async def test_the_greedy_token_is_the_most_likely(engine: Engine) -> None:
    """Without bias or penalties greedy takes the first of the best."""
    answer = await ask(engine, await chat(engine), num_logprobs=3)
    assert [at.chosen for at in answer.logprobs] == [at.top[0] for at in answer.logprobs]


async def test_the_bytes_of_the_tokens_make_the_text(engine: Engine) -> None:
    """Joined, the chosen tokens' bytes are the answer's text, and each token's text is its bytes decoded."""
    answer = await ask(engine, await chat(engine), ignore_eos=True, max_tokens=6, num_logprobs=2)
    assert b"".join(at.chosen.token_bytes for at in answer.logprobs).decode() == answer.text
    for at in answer.logprobs:
        for alternative in (at.chosen, *at.top):
            assert alternative.token == alternative.token_bytes.decode("utf-8", "replace")


async def test_logprobs_are_of_the_raw_distribution(engine: Engine) -> None:
    """Temperature, filters, penalties and bias change the draw and not the reported numbers."""
    prompt = await chat(engine, QUESTIONS[1])
    plain = await ask(engine, prompt, max_tokens=1, num_logprobs=5)
    shaped = await ask(
        engine,
        prompt,
        max_tokens=1,
        num_logprobs=5,
        temperature=1.7,
        seed=1,
        top_k=3,
        top_p=0.9,
        repetition_penalty=1.5,
        logit_bias={plain.token_ids[0]: -5.0},
    )
    assert [other.token_id for other in shaped.logprobs[0].top] == [other.token_id for other in plain.logprobs[0].top]
    for one, other in zip(plain.logprobs[0].top, shaped.logprobs[0].top, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


async def test_each_choice_has_its_own_logprobs(engine: Engine) -> None:
    """With several choices every choice's numbers are about its own tokens."""
    asked = request(await chat(engine, QUESTIONS[1]), n=3, temperature=1.2, seed=2, max_tokens=6, num_logprobs=1)
    for answer in await choices(engine, asked):
        assert tuple(at.chosen.token_id for at in answer.logprobs) == answer.token_ids


async def test_logprobs_do_not_change_the_answer(engine: Engine) -> None:
    """Asking for numbers leaves the tokens alone."""
    prompt = await chat(engine, QUESTIONS[1])
    for heat in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 9}):
        with_numbers = await ask(engine, prompt, max_tokens=12, num_logprobs=2, **heat)
        assert with_numbers.token_ids == (await ask(engine, prompt, max_tokens=12, **heat)).token_ids
