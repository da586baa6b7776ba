"""How the conformance suite asks an engine, what it gets, and the rule by which two answers agree."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from forebay.engines.base import Engine, EngineLoad
from forebay.types import Chat, Delta, FinishReason, GenerationRequest, Prompt, Sampling, TokenLogprob

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three colours.",
    "How do I boil an egg?",
    "What does a dam do?",
)
MAX_TOP = 20
FREE_TOKENS = 20
_ids = itertools.count()


@dataclass(frozen=True)
class Answer:
    """One choice, put together from its deltas."""

    deltas: tuple[Delta, ...]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def token_ids(self) -> tuple[int, ...]:
        return tuple(token for delta in self.deltas for token in delta.token_ids)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        return tuple(logprob for delta in self.deltas for logprob in delta.logprobs)

    @property
    def finish_reason(self) -> FinishReason | None:
        return self.deltas[-1].finish_reason

    @property
    def stop_reason(self) -> str | int | None:
        return self.deltas[-1].stop_reason


def request(
    prompt: Prompt, *, n: int = 1, priority: int = 0, metadata: dict[str, str] | None = None, **sampling: Any
) -> GenerationRequest:
    """Greedy and 24 tokens unless told otherwise."""
    wanted = Sampling(**{"max_tokens": 24, "temperature": 0.0} | sampling)
    name = f"test-{next(_ids)}"
    return GenerationRequest(name, prompt, wanted, num_choices=n, priority=priority, metadata=metadata or {})


async def choices(engine: Engine, asked: GenerationRequest) -> list[Answer]:
    """Every choice's answer; each must end exactly once, with a finish reason on its last delta and on no other."""
    deltas: dict[int, list[Delta]] = {}
    async with aclosing(engine.generate(asked)) as stream:
        async for delta in stream:
            deltas.setdefault(delta.index, []).append(delta)
    assert sorted(deltas) == list(range(asked.num_choices))
    for of_choice in deltas.values():
        assert [delta.finish_reason is not None for delta in of_choice] == [False] * (len(of_choice) - 1) + [True]
    return [Answer(tuple(deltas[index])) for index in range(asked.num_choices)]


async def mixed(engine: Engine, number: int) -> Answer:
    """One of many greedy requests of many lengths, with stop strings, stop ids, bias, penalties or none of them."""
    prompt = await chat(engine, f"{QUESTIONS[number % len(QUESTIONS)]} {number} " + "Please. " * (3 * (number % 7)))
    wanted: dict[str, object] = {"max_tokens": 3 + number * 7 % 12, "num_logprobs": MAX_TOP}
    match number % 6:
        case 1:
            wanted["stop"] = (".", "\n\n")
        case 2:
            wanted["ignore_eos"] = True
        case 3:
            wanted["logit_bias"] = {number + 100: -100.0, number + 101: 2.0}
        case 4:
            wanted["stop_token_ids"] = (number + 40,)
        case 5:
            wanted |= {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1}
    return await ask(engine, prompt, **wanted)


async def ask(engine: Engine, prompt: Prompt, **wanted: Any) -> Answer:
    return (await choices(engine, request(prompt, **wanted)))[0]


async def chat(engine: Engine, question: str = QUESTIONS[0]) -> Prompt:
    return await engine.render(Chat(({"role": "user", "content": question},)))


async def raw(engine: Engine, text: str) -> Prompt:
    return Prompt(tuple(await engine.tokenize(text)))


async def eos_of(engine: Engine) -> int:
    """The id that ends an answer; both the demo model and the scripted engine speak ChatML."""
    (token,) = await engine.tokenize("<|im_end|>", add_special_tokens=False)
    return token


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Waits for `condition`, looked at every few milliseconds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of engines, which set no event
            await asyncio.sleep(0.002)


async def settled(engine: Engine) -> EngineLoad:
    """The load once nothing runs or waits; counters of engines in other processes arrive a little late."""
    await until(lambda: engine.load().running + engine.load().waiting == 0)
    return engine.load()


def divergence_gap(reference: Answer, other: Sequence[int]) -> float:
    """How much less likely the reference's model held `other`'s token where the two first differ; 0 if they never do.

    `reference` must carry `MAX_TOP` alternatives; a token that is not among them counts as infinitely far.
    """
    for chosen, token, at in zip(reference.token_ids, other, reference.logprobs, strict=False):
        if chosen != token:
            known = {alternative.token_id: alternative.logprob for alternative in at.top}
            return at.chosen.logprob - known.get(token, -math.inf)
    return 0.0
