"""One constrained token of the served model: yes or no, and how sure it is."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from typing import Literal

from forebay.background import Background
from forebay.cache.verification.wording import OTHER, SAME
from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.errors import ApiError
from forebay.types import Chat, GenerationRequest, Prompt, Sampling, TokenLogprob
from forebay.values import value

NUM_TOP = 20
"""Alternatives that are looked at; every engine gives as many."""

BIAS = 100.0
"""Lifts the two words above all others. Log-probabilities are reported before it."""

Trouble = Literal["slow", "unavailable", "astray"]
"""Why there is no word: not within the time; no engine, or it failed; neither of the two."""


@value
class Word:
    """`score`: log of the odds of yes against no, in the model's own distribution; where one of the two is not among
    the most likely tokens, as if it were as likely as the last of these."""

    score: float
    num_prompt_tokens: int
    num_cached_tokens: int
    seconds: float


class Asking:
    """Lives on the event loop."""

    def __init__(self, host: EngineHost, background: Background) -> None:
        self._host = host
        self._background = background
        self._words: tuple[Engine, tuple[int, int] | None] | None = None

    async def ask(self, text: str, tenant: str, timeout_s: float, *, wait_s: float | None) -> Word | Trouble:
        """`text`: of `wording`; `tenant`: whose words are in it. `wait_s`: until the engine has time for it, None for
        as long as it takes; then it has `timeout_s`. Cancelled, or out of time, the engine is told."""
        try:
            async with asyncio.timeout(wait_s) as limit:
                return await self._ask(text, tenant, timeout_s, limit)
        except TimeoutError:
            return "slow"
        except ApiError:
            return "unavailable"

    async def _ask(self, text: str, tenant: str, timeout_s: float, limit: asyncio.Timeout) -> Word | Trouble:
        engine = self._host.current
        if engine is None:
            return "unavailable"
        words = await self._words_of(engine)
        if words is None:
            return "astray"
        prompt = await _prompt(engine, text)
        sampling = Sampling(max_tokens=1, temperature=0.0, num_logprobs=NUM_TOP, logit_bias=dict.fromkeys(words, BIAS))
        request = GenerationRequest(f"own-{uuid.uuid4().hex}", prompt, sampling)
        engine.check(request)
        logprobs: tuple[TokenLogprob, ...] = ()
        num_cached_tokens = 0
        async with self._background.run(request, tenant) as deltas:
            limit.reschedule(asyncio.get_running_loop().time() + timeout_s)
            began = time.perf_counter()
            async for delta in deltas:
                logprobs += delta.logprobs
                num_cached_tokens = max(num_cached_tokens, delta.num_cached_tokens)
            seconds = time.perf_counter() - began
        score = _score(logprobs[0], words) if logprobs else None
        if score is None:
            return "astray"
        return Word(score, len(prompt.token_ids), num_cached_tokens, seconds)

    async def _words_of(self, engine: Engine) -> tuple[int, int] | None:
        if self._words is None or self._words[0] is not engine:
            self._words = engine, await _first_tokens(engine)
        return self._words[1]


async def _first_tokens(engine: Engine) -> tuple[int, int] | None:
    """What the two words begin with, after a space where the text goes on; None where they begin alike."""
    for space in ("",) if engine.info.chat_template is not None else (" ", ""):
        yes, no = [(await engine.tokenize(space + word, add_special_tokens=False))[0] for word in (SAME, OTHER)]
        if yes != no:
            return yes, no
    return None


async def _prompt(engine: Engine, text: str) -> Prompt:
    """Through the model's template, without reasoning where that can be switched off; as it is for a model without."""
    if engine.info.chat_template is None:
        return Prompt(tuple(await engine.tokenize(text)), text)
    return await engine.render(Chat(({"role": "user", "content": text},), template_kwargs={"enable_thinking": False}))


def _score(logprob: TokenLogprob, words: tuple[int, int]) -> float | None:
    if logprob.chosen.token_id not in words:
        return None
    known = {alternative.token_id: alternative.logprob for alternative in (*logprob.top, logprob.chosen)}
    least = min(known.values())
    yes, no = (known.get(word, least) for word in words)
    score = yes - no
    return score if math.isfinite(score) else math.copysign(1e3, score)
