"""What every engine does with a plain request."""

from __future__ import annotations

import asyncio

import pytest
from asking import QUESTIONS, ask, chat, choices, raw, request, settled

from forebay.engines.base import Engine
from forebay.errors import ContextTooLong, InvalidRequest
from forebay.types import Prompt

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_greedy_answers_repeat(engine: Engine) -> None:
    """The same greedy request gives the same tokens and text each time."""
    prompt = await chat(engine)
    first, second = await ask(engine, prompt), await ask(engine, prompt)
    assert first.token_ids == second.token_ids
    assert first.text == second.text != ""


async def test_a_seed_fixes_the_draws(engine: Engine) -> None:
    """The same seed draws the same tokens again; other seeds draw others."""
    prompt = await chat(engine, QUESTIONS[1])
    answers = [await ask(engine, prompt, temperature=1.0, seed=seed, max_tokens=12) for seed in (7, 7, 8, 9)]
    assert answers[0].token_ids == answers[1].token_ids
    assert len({answer.token_ids for answer in answers}) == 3


async def test_seeds_are_per_request_not_per_batch(engine: Engine) -> None:
    """Company in the batch does not change what a seed draws."""
    prompt = await chat(engine, QUESTIONS[1])
    alone = await ask(engine, prompt, temperature=1.0, seed=7, max_tokens=8)
    others = [ask(engine, prompt, temperature=1.0, seed=seed, max_tokens=8) for seed in range(20, 24)]
    in_company, *_ = await asyncio.gather(ask(engine, prompt, temperature=1.0, seed=7, max_tokens=8), *others)
    assert in_company.token_ids == alone.token_ids


async def test_several_choices_differ_and_all_end(engine: Engine) -> None:
    """`n` choices carry indices 0..n-1, each ends, and sampled ones differ even with one seed."""
    prompt = await chat(engine, QUESTIONS[1])
    answers = await choices(engine, request(prompt, n=4, temperature=1.0, seed=3, max_tokens=12))
    assert len({answer.token_ids for answer in answers}) == 4


async def test_max_tokens_is_exact(engine: Engine) -> None:
    """An answer cut at `max_tokens` has that many tokens and says `length`."""
    prompt = await chat(engine)
    for max_tokens in (1, 2, 7):
        answer = await ask(engine, prompt, max_tokens=max_tokens, ignore_eos=True)
        assert (len(answer.token_ids), answer.finish_reason, answer.stop_reason) == (max_tokens, "length", None)


async def test_text_is_the_detokenised_tokens(engine: Engine) -> None:
    """What the deltas say is what the tokens say."""
    answer = await ask(engine, await chat(engine), max_tokens=6, ignore_eos=True)
    assert answer.text == await engine.detokenize(list(answer.token_ids))


async def test_a_prompt_of_token_ids_needs_no_text(engine: Engine) -> None:
    """Token ids alone give the answer that the rendered prompt gives."""
    prompt = await chat(engine)
    assert prompt.text
    assert (await ask(engine, Prompt(prompt.token_ids))).token_ids == (await ask(engine, prompt)).token_ids


async def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    """There is nothing to continue: a 400 that names the prompt."""
    with pytest.raises(InvalidRequest) as refusal:
        await ask(engine, Prompt(()))
    assert refusal.value.param == "prompt"


async def test_a_prompt_that_fills_the_context_is_refused(engine: Engine) -> None:
    """A prompt that leaves no room for one token is too long; one shorter gives one token and says `length`."""
    (token,) = (await engine.tokenize(" the", add_special_tokens=False))[:1]
    limit = engine.info.max_model_len
    for length in (limit, limit + 1, 4 * limit):
        with pytest.raises(ContextTooLong):
            await ask(engine, Prompt((token,) * length))
    answer = await ask(engine, Prompt((token,) * (limit - 1)), max_tokens=8, ignore_eos=True)
    assert (len(answer.token_ids), answer.finish_reason) == (1, "length")


@pytest.mark.parametrize("beyond", [0, 1_000_000], ids=["first", "far"])
async def test_ids_outside_the_vocabulary_are_refused(engine: Engine, beyond: int) -> None:
    """In the prompt and in `logit_bias`, with a 400, and the engine lives on."""
    outside = engine.info.vocab_size + beyond
    prompt = await chat(engine)
    with pytest.raises(InvalidRequest):
        await ask(engine, Prompt((*prompt.token_ids, outside)))
    with pytest.raises(InvalidRequest):
        await ask(engine, prompt, logit_bias={outside: 1.0})
    assert (await ask(engine, prompt, max_tokens=1)).token_ids


async def test_what_is_refused_can_be_refused_before_it_waits(engine: Engine) -> None:
    """`check` says what `generate` would, without asking the engine for anything."""
    prompt = await chat(engine)
    engine.check(request(prompt))
    token, outside = prompt.token_ids[0], engine.info.vocab_size
    for bad in (Prompt(()), Prompt((outside,))):
        with pytest.raises(InvalidRequest):
            engine.check(request(bad))
    with pytest.raises(InvalidRequest):
        engine.check(request(prompt, logit_bias={outside: 1.0}))
    with pytest.raises(ContextTooLong):
        engine.check(request(Prompt((token,) * engine.info.max_model_len)))


async def test_counters_grow_by_what_is_delivered(engine: Engine) -> None:
    """Generated tokens are counted as the deltas carry them, over choices, stop strings and ends alike."""
    prompt = await chat(engine, "Tell me something that you were never asked before.")
    before = await settled(engine)
    answers = await choices(engine, request(prompt, n=3, temperature=1.0, seed=1, max_tokens=9))
    answers += await choices(engine, request(prompt, max_tokens=5, ignore_eos=True))
    after = await settled(engine)
    assert after.num_generated_tokens - before.num_generated_tokens == sum(len(answer.token_ids) for answer in answers)
    assert 0 < after.num_prompt_tokens - before.num_prompt_tokens <= 4 * len(prompt.token_ids)
    assert after.num_steps > before.num_steps


async def test_an_idle_engine_holds_nothing(engine: Engine) -> None:
    """Once answered, a request leaves no sequence and no KV memory in use."""
    await ask(engine, await chat(engine), max_tokens=2)
    load = await settled(engine)
    assert (load.running, load.waiting) == (0, 0)
    assert load.kv_use == 0.0


async def test_a_finished_choice_reports_its_times(engine: Engine) -> None:
    """The last delta says how long the choice waited, prefilled and decoded."""
    answer = await ask(engine, await chat(engine), max_tokens=4, ignore_eos=True)
    times = answer.deltas[-1].times
    assert times is not None
    assert min(times.queue_s, times.prefill_s, times.decode_s) >= 0
    assert times.prefill_s + times.decode_s > 0


async def test_tokens_alone_as_strings(engine: Engine) -> None:
    """`token_strings` has one entry a token, which together make ASCII text again."""
    ids = await engine.tokenize("the water", add_special_tokens=False)
    strings = engine.token_strings(ids)
    assert len(strings) == len(ids)
    assert "".join(strings) == "the water"


async def test_tokenize_and_detokenize_are_inverse(engine: Engine) -> None:
    """Any text comes back from its tokens, emoji and CJK included."""
    for text in ("plain words", "naïve café", "日本語 😀 \u0301x", "tabs\tand\n\nlines", "<|im_start|>user"):
        assert await engine.detokenize(await engine.tokenize(text, add_special_tokens=False)) == text


async def test_raw_text_and_chat_are_different_prompts(engine: Engine) -> None:
    """A completion's prompt is the text alone, a chat's is wrapped by the template."""
    assert len((await raw(engine, QUESTIONS[0])).token_ids) < len((await chat(engine, QUESTIONS[0])).token_ids)
