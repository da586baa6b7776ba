"""Where an answer ends: stop strings, stop ids, the end of sequence, and the floor under them."""

from __future__ import annotations

import pytest
from asking import FREE_TOKENS, QUESTIONS, Answer, ask, chat, eos_of

from forebay.engines.base import Engine

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def boundaries(engine: Engine, answer: Answer) -> list[int]:
    """The length of the text after each token."""
    ids = list(answer.token_ids)
    return [len(await engine.detokenize(ids[:end])) for end in range(1, len(ids) + 1)]


async def straddling_stops(engine: Engine, answer: Answer) -> list[tuple[str, int]]:
    """(stop string, number of tokens it takes): strings that begin inside one token and end inside a later one."""
    ends, text = await boundaries(engine, answer), answer.text
    stops = []
    for number in range(3, len(ends) - 2, 4):
        stop = text[ends[number] - 1 : ends[number + 1] + 1]
        completed = text.find(stop) + len(stop)
        num_tokens = next(count for count, end in enumerate(ends, 1) if end >= completed)
        stops.append((stop, num_tokens))
    return stops


async def test_stop_strings_across_tokens_cut_exactly(engine: Engine, free: Answer) -> None:
    """A stop string split over tokens ends the answer at its first character; no delta ever shows a part of it."""
    prompt = await chat(engine, QUESTIONS[1])
    stops = await straddling_stops(engine, free)
    assert len(stops) >= 3
    for stop, num_tokens in stops:
        answer = await ask(engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=(stop,))
        assert answer.text == free.text[: free.text.find(stop)]
        assert (answer.finish_reason, answer.stop_reason) == ("stop", stop)
        assert answer.token_ids == free.token_ids[:num_tokens]


async def test_a_stop_string_may_be_included(engine: Engine, free: Answer) -> None:
    """With `include_stop_str_in_output` the text ends with the stop string, and not with more of its last token."""
    prompt = await chat(engine, QUESTIONS[1])
    for stop, _ in await straddling_stops(engine, free):
        answer = await ask(
            engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=(stop,), include_stop_str_in_output=True
        )
        assert answer.text == free.text[: free.text.find(stop) + len(stop)]


async def test_text_held_for_a_stop_string_is_released(engine: Engine, free: Answer) -> None:
    """What only looked like the beginning of a stop string arrives in full, in the middle and at the end."""
    prompt = await chat(engine, QUESTIONS[1])
    lookalikes = (free.text[5:10] + "\x00", free.text[-4:] + "\x00")
    answer = await ask(engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=lookalikes)
    assert (answer.text, answer.finish_reason) == (free.text, "length")


async def test_the_stop_string_that_completes_first_wins(engine: Engine, free: Answer) -> None:
    """Of several stop strings the one complete earliest in the text ends the answer, whatever their order."""
    prompt = await chat(engine, QUESTIONS[1])
    (early, _), *_, (late, _) = sorted(await straddling_stops(engine, free), key=lambda stop: stop[1])
    for stops in ((early, late), (late, early)):
        answer = await ask(engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=stops)
        assert answer.stop_reason == early


async def test_stop_strings_count_only_after_min_tokens(engine: Engine, free: Answer) -> None:
    """A stop string complete within the first `min_tokens` tokens is ordinary text."""
    prompt = await chat(engine, QUESTIONS[1])
    stop, num_tokens = (await straddling_stops(engine, free))[0]
    assert free.text.count(stop) == 1, "the prompt no longer gives a text in which this can be seen"
    below = await ask(engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=(stop,), min_tokens=num_tokens - 1)
    assert below.stop_reason == stop
    above = await ask(engine, prompt, max_tokens=FREE_TOKENS, ignore_eos=True, stop=(stop,), min_tokens=num_tokens)
    assert (above.text, above.finish_reason) == (free.text, "length")


async def test_a_stop_id_ends_the_answer(engine: Engine, free: Answer) -> None:
    """The stop token is counted and named, and its text is left out unless included."""
    prompt = await chat(engine, QUESTIONS[1])
    stop_id = free.token_ids[6]
    end = free.token_ids.index(stop_id) + 1
    before = await engine.detokenize(list(free.token_ids[: end - 1]))
    answer = await ask(engine, prompt, max_tokens=12, stop_token_ids=(stop_id,))
    assert (answer.token_ids, answer.text) == (free.token_ids[:end], before)
    assert (answer.finish_reason, answer.stop_reason) == ("stop", stop_id)
    shown = await ask(engine, prompt, max_tokens=12, stop_token_ids=(stop_id,), include_stop_str_in_output=True)
    assert shown.text == await engine.detokenize(list(free.token_ids[:end])) != before


async def test_the_end_of_sequence_ends_the_answer(engine: Engine) -> None:
    """The model's own end is counted as a token, shows no text and has no stop reason."""
    eos = await eos_of(engine)
    answer = await ask(engine, await chat(engine), logit_bias={eos: 100.0})
    assert (answer.token_ids, answer.text) == ((eos,), "")
    assert (answer.finish_reason, answer.stop_reason) == ("stop", None)


async def test_the_end_of_sequence_named_as_a_stop_id(engine: Engine) -> None:
    """It is the end of sequence first, without a stop reason; only where that is ignored it is the stop id."""
    eos, prompt = await eos_of(engine), await chat(engine)
    for ignore_eos, stop_reason in ((False, None), (True, eos)):
        wanted = {"logit_bias": {eos: 100.0}, "stop_token_ids": (eos,), "ignore_eos": ignore_eos}
        answer = await ask(engine, prompt, **wanted)
        assert (answer.token_ids, answer.finish_reason, answer.stop_reason) == ((eos,), "stop", stop_reason)


async def test_ignore_eos_goes_on(engine: Engine) -> None:
    """With `ignore_eos` the end of sequence is an ordinary token, hidden or shown like other special tokens."""
    eos, prompt = await eos_of(engine), await chat(engine)
    hidden = await ask(engine, prompt, max_tokens=3, logit_bias={eos: 100.0}, ignore_eos=True)
    assert (hidden.token_ids, hidden.text, hidden.finish_reason) == ((eos,) * 3, "", "length")
    shown = await ask(engine, prompt, max_tokens=3, logit_bias={eos: 100.0}, ignore_eos=True, skip_special_tokens=False)
    assert shown.text == "<|im_end|>" * 3


async def test_min_tokens_forbids_an_early_end(engine: Engine, free: Answer) -> None:
    """Neither the end of sequence nor a stop id may come among the first `min_tokens` tokens."""
    eos, prompt = await eos_of(engine), await chat(engine, QUESTIONS[1])
    ended = await ask(engine, prompt, min_tokens=5, logit_bias={eos: 100.0})
    assert ended.token_ids.index(eos) == len(ended.token_ids) - 1 == 5
    stop_id = free.token_ids[1]
    stopped = await ask(engine, prompt, max_tokens=8, min_tokens=4, ignore_eos=True, stop_token_ids=(stop_id,))
    assert stop_id not in stopped.token_ids[:4]
