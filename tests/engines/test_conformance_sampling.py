"""What each field of a sampling does to the draw."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest
from asking import MAX_TOP, QUESTIONS, Answer, ask, chat, raw

from forebay.engines.base import Engine

pytestmark = pytest.mark.asyncio(loop_scope="session")

PENALTIES = ((2.0, 0.0), (0.0, 2.0), (1.0, 0.7), (-1.5, 0.0), (0.0, -1.0))
REPEATING = "one two three one two three one two three one two three one two"
EPSILON = 0.01
"""Slack in nats for numbers that were computed in another batch."""


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=["top_k=1", "top_p=1e-6", "min_p=1"]
)
async def test_the_narrowest_filter_is_greedy(engine: Engine, free: Answer, narrow: dict[str, float]) -> None:
    """A filter that leaves only the most likely token makes a hot draw greedy."""
    prompt = await chat(engine, QUESTIONS[1])
    answer = await ask(engine, prompt, max_tokens=12, temperature=1.5, seed=5, ignore_eos=True, **narrow)
    assert answer.token_ids == free.token_ids[:12]


async def drawn(engine: Engine, *sampling: dict[str, object]) -> list[Answer]:
    """One answer for each sampling, all in one batch."""
    prompt = await chat(engine, QUESTIONS[1])
    return list(await asyncio.gather(*(ask(engine, prompt, ignore_eos=True, **wanted) for wanted in sampling)))


async def test_temperature_spreads_the_draw(engine: Engine) -> None:
    """A low temperature stays with likely tokens, a high one leaves them; what is reported stays the model's."""
    wanted = {"seed": 11, "num_logprobs": 0}
    cold, hot = await drawn(engine, {"temperature": 0.2, **wanted}, {"temperature": 2.0, **wanted})
    assert mean_logprob(cold) > mean_logprob(hot) + 0.5


async def test_top_k_keeps_k(engine: Engine) -> None:
    """Every token is one of the k most likely, where a draw without top_k leaves them."""
    wanted = {"temperature": 2.0, "seed": 2, "num_logprobs": 3}
    free, kept = await drawn(engine, wanted, {"top_k": 3, **wanted})
    assert worst_rank(free) > 3
    assert worst_rank(kept) <= 3


async def test_top_p_keeps_the_nucleus(engine: Engine) -> None:
    """Less than top_p of the mass lies above every drawn token, where a draw without top_p goes lower."""
    wanted = [{"temperature": 1.0, "num_logprobs": MAX_TOP, "seed": seed} for seed in range(3)]
    answers = await drawn(engine, *wanted, *({"top_p": 0.4, **one} for one in wanted))
    assert max(map(mass_above, answers[:3])) > 0.5
    assert max(map(mass_above, answers[3:])) < 0.4 + EPSILON


async def test_min_p_keeps_what_is_close_to_the_best(engine: Engine) -> None:
    """No token is less likely than min_p times the most likely one, where a draw without min_p goes lower."""
    wanted = [{"temperature": 1.0, "num_logprobs": 1, "seed": seed} for seed in range(3)]
    answers = await drawn(engine, *wanted, *({"min_p": 0.3, **one} for one in wanted))
    assert max(map(farthest_from_best, answers[:3])) > -math.log(0.2)
    assert max(map(farthest_from_best, answers[3:])) < -math.log(0.3) + EPSILON


async def test_logit_bias_forces_and_forbids(engine: Engine) -> None:
    """+100 makes a token certain and -100 impossible, in greedy and in hot draws."""
    prompt = await chat(engine)
    greedy = await ask(engine, prompt, max_tokens=8, ignore_eos=True)
    (forced,) = await engine.tokenize(" water", add_special_tokens=False)
    forbidden = dict.fromkeys(greedy.token_ids, -100.0)
    for heat in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 1}):
        always = await ask(engine, prompt, max_tokens=4, ignore_eos=True, logit_bias={forced: 100.0}, **heat)
        assert always.token_ids == (forced,) * 4
        never = await ask(engine, prompt, max_tokens=8, ignore_eos=True, logit_bias=forbidden, **heat)
        assert not set(never.token_ids) & set(greedy.token_ids)


async def test_presence_and_frequency_penalties(engine: Engine) -> None:
    """Greedy takes the best of logprob - presence (once generated) - frequency (each time), prompt tokens free."""
    prompt = await raw(engine, REPEATING)
    wanted = {"max_tokens": 40, "num_logprobs": MAX_TOP, "ignore_eos": True}
    plain, *answers = await asyncio.gather(
        ask(engine, prompt, **wanted),
        *(
            ask(engine, prompt, presence_penalty=presence, frequency_penalty=frequency, **wanted)
            for presence, frequency in PENALTIES
        ),
    )
    for (presence, frequency), answer in zip(PENALTIES, answers, strict=True):
        assert answer.token_ids != plain.token_ids, (presence, frequency)
        assert_best_after_penalties(answer, presence, frequency)


async def test_a_repetition_penalty_above_one_repeats_less(engine: Engine) -> None:
    """Tokens of the prompt and of the answer lose likelihood: the answers hold more new tokens than without."""
    texts = (REPEATING, "red blue red blue red blue red blue red", "a b c d a b c d a b c d a b")
    prompts = [await raw(engine, text) for text in texts]
    num_new = {}
    for penalty in (1.0, 1.8):
        wanted = {"max_tokens": 32, "ignore_eos": True, "repetition_penalty": penalty}
        answers = await asyncio.gather(*(ask(engine, prompt, **wanted) for prompt in prompts))
        pairs = zip(prompts, answers, strict=True)
        num_new[penalty] = sum(len(set(answer.token_ids) - set(prompt.token_ids)) for prompt, answer in pairs)
    assert num_new[1.8] > 1.2 * num_new[1.0]


async def test_a_repetition_penalty_counts_the_prompt(engine: Engine) -> None:
    """The first token already avoids what stands in the prompt: from one likely only for repeating to another."""
    (token,) = await engine.tokenize(" water", add_special_tokens=False)
    (twin,) = await engine.tokenize(" river", add_special_tokens=False)
    prompt = await raw(engine, "the water the water the")
    bias = {token: 90.0, twin: 70.0}
    first = await ask(engine, prompt, max_tokens=1, logit_bias=bias)
    punished = await ask(engine, prompt, max_tokens=1, logit_bias=bias, repetition_penalty=2.0)
    assert (first.token_ids, punished.token_ids) == ((token,), (twin,))


def mean_logprob(answer: Answer) -> float:
    return math.fsum(at.chosen.logprob for at in answer.logprobs) / len(answer.logprobs)


def worst_rank(answer: Answer) -> int:
    """The largest rank of a chosen token among the reported ones; one more than those where it is not among them."""
    return max(
        [alternative.token_id for alternative in at.top].index(at.chosen.token_id) + 1
        if at.chosen.token_id in {alternative.token_id for alternative in at.top}
        else len(at.top) + 1
        for at in answer.logprobs
    )


def mass_above(answer: Answer) -> float:
    """The largest probability mass of tokens more likely than the chosen one."""
    return max(
        math.fsum(math.exp(other.logprob) for other in at.top if other.logprob > at.chosen.logprob)
        for at in answer.logprobs
    )


def farthest_from_best(answer: Answer) -> float:
    return max(at.top[0].logprob - at.chosen.logprob for at in answer.logprobs)


def assert_best_after_penalties(answer: Answer, presence: float, frequency: float) -> None:
    """Each chosen token beats, up to `EPSILON`, every reported alternative once all are penalised."""
    counts: Counter[int] = Counter()

    def penalised(token_id: int, logprob: float) -> float:
        return logprob - frequency * counts[token_id] - presence * (counts[token_id] > 0)

    for at in answer.logprobs:
        best = max(penalised(other.token_id, other.logprob) for other in at.top)
        assert penalised(at.chosen.token_id, at.chosen.logprob) >= best - EPSILON, (presence, frequency)
        counts[at.chosen.token_id] += 1
