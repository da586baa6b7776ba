"""One answer while it is written: draws tokens, turns them into text, knows when it is over."""

from __future__ import annotations

import time

from forebay.engines.scripted.job import Job
from forebay.engines.scripted.model import PseudoModel, advance, state_of
from forebay.engines.scripted.sampler import Sampler, num_careful_draws, uniform_numbers
from forebay.engines.scripted.tokenizer import TextStream
from forebay.engines.scripted.vocabulary import EOS
from forebay.engines.stopping import StopMatcher
from forebay.types import Delta, EngineTimes, FinishReason, TokenLogprob

SCRIPT_MARGIN = 60.0
"""By how much a scripted token's logit stands above all others: a bias of 100 still overrules it."""

ONLY_EOS: frozenset[int] = frozenset([EOS])
NO_TOKENS: frozenset[int] = frozenset()

DRAWN_AHEAD = 16
"""Tokens that are drawn at once and told one by one: what a step costs is a call, much more than a draw."""


class Choice:
    """`num_tokens` counts what was drawn; `finish_reason` is set by the `advance` that ends the choice.

    Its life in the engine: `arrived_at`, `admitted_at` (a slot), `first_token_at`; seconds of the monotonic clock.
    `due_at` is when its next step may come; its keeper minds it.
    """

    __slots__ = (
        "_ahead",
        "_context",
        "_ends",
        "_logprobs",
        "_matcher",
        "_max_tokens",
        "_model",
        "_num_ahead_told",
        "_num_careful",
        "_one_by_one",
        "_sampler",
        "_sampling",
        "_script",
        "_stream",
        "_uniform",
        "admitted_at",
        "arrived_at",
        "due_at",
        "failure",
        "finish_reason",
        "first_token_at",
        "index",
        "job",
        "num_cached_tokens",
        "num_tokens",
        "stop_reason",
    )

    def __init__(self, job: Job, index: int, model: PseudoModel, context: int, max_tokens: int) -> None:
        """`context` is the model's after the prompt; `max_tokens` is what the sampling and the model allow."""
        sampling, scripts = job.request.sampling, job.directives.scripts
        self.job = job
        self.index = index
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.stop_reason: str | int | None = None
        self.failure = job.directives.failure
        self.arrived_at = time.monotonic()
        self.due_at = self.admitted_at = self.first_token_at = 0.0
        self._sampling = sampling
        self._model = model
        self._context = context
        self._script = script = scripts[index % len(scripts)] if scripts else None
        self._max_tokens = max_tokens
        if script is not None and script.cut_off:
            self._max_tokens = min(max_tokens, len(script.token_ids))
        self._ends = NO_TOKENS if sampling.ignore_eos else ONLY_EOS
        if sampling.stop_token_ids:
            self._ends = self._ends.union(sampling.stop_token_ids)
        self._uniform = uniform_numbers(sampling, context, index)
        self._num_careful = num_careful_draws(sampling, self._ends)
        self._sampler = Sampler(job.request, self._ends, self._uniform) if self._num_careful else None
        self._stream = TextStream(sampling.skip_special_tokens)
        self._matcher = StopMatcher(sampling.stop, sampling.include_stop_str_in_output) if sampling.stop else None
        self._one_by_one = script is not None or self._matcher is not None
        self._logprobs: list[TokenLogprob] = []
        self._ahead: list[int] = []
        self._num_ahead_told = 0

    @property
    def failing(self) -> bool:
        """The failpoint is reached: no further token may be drawn."""
        return self.failure is not None and self.num_tokens >= self.failure.num_tokens

    def advance(self, burst: int) -> Delta:
        """Draws up to `burst` tokens, all of a script's item at least, one where logits must be looked at."""
        usual_burst = burst
        if self.num_tokens == 0:
            self.first_token_at, burst = time.monotonic(), 1
        elif self.num_tokens + burst > self._max_tokens:
            burst = self._max_tokens - self.num_tokens
        if self.failure is not None:
            burst = min(burst, self.failure.num_tokens - self.num_tokens)
        if self._one_by_one or self.num_tokens < self._num_careful:
            token_ids, text = self._advance_one_by_one(burst)
        else:
            token_ids = self._write(burst) if usual_burst >= DRAWN_AHEAD else self._take(burst)
            text = self._absorb(token_ids)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._logprobs:
            logprobs, self._logprobs = tuple(self._logprobs), []
        return Delta(
            self.index,
            text,
            tuple(token_ids),
            logprobs,
            self.finish_reason,
            self.stop_reason,
            self.num_cached_tokens,
            times=None if self.finish_reason is None else self._times(),
        )

    def _write(self, num_tokens: int) -> list[int]:
        """The model's next tokens, up to one that ends the answer."""
        token_ids, self._context = self._model.write(
            self._context, num_tokens, self._ends, self._sampling.temperature, self._uniform
        )
        return token_ids

    def _take(self, num_tokens: int) -> list[int]:
        """The same, of tokens that were drawn together."""
        begin, end = self._num_ahead_told, self._num_ahead_told + num_tokens
        if end > len(self._ahead):
            left = self._ahead[begin:]
            if not left or left[-1] not in self._ends:
                left += self._write(min(DRAWN_AHEAD, self._max_tokens - self.num_tokens - len(left)))
            self._ahead, begin, end = left, 0, num_tokens
        self._num_ahead_told = end
        return self._ahead[begin:end]

    def _advance_one_by_one(self, burst: int) -> tuple[list[int], str]:
        """(token ids, text) where a token may end the choice by more than its id, or is not the model's own."""
        if self.num_tokens < self._num_careful:
            burst = 1
        token_ids: list[int] = []
        text = ""
        while self.finish_reason is None and (len(token_ids) < burst or self._inside_item()):
            token = self._draw()
            self._context = advance(self._context, token)
            token_ids.append(token)
            text += self._absorb([token])
        return token_ids, text

    def _draw(self) -> int:
        forced = self._scripted_token()
        if self._sampler is not None and self.num_tokens < self._num_careful:
            return self._draw_carefully(self._sampler, forced)
        if forced is not None:
            return forced
        (token,), _ = self._model.write(self._context, 1, (), self._sampling.temperature, self._uniform)
        return token

    def _draw_carefully(self, sampler: Sampler, forced: int | None) -> int:
        """As bias, penalties and filters want it, with its log-probability if that is asked for."""
        logits = self._model.logits[state_of(self._context)]
        if forced is not None:
            logits = logits.copy()
            logits[forced] = max(logits) + SCRIPT_MARGIN
        token = sampler.draw(logits, self.num_tokens)
        if self._sampling.num_logprobs is not None:
            reported = self._scripted_logprob() if token == forced else None
            self._logprobs.append(sampler.logprob(logits, token, reported))
        return token

    def _absorb(self, token_ids: list[int]) -> str:
        """Counts them; the text that they release. Whether the last ends the choice: a stop string wins over length."""
        self.num_tokens += len(token_ids)
        sampling, last = self._sampling, token_ids[-1]
        by_id = last in self._ends
        if by_id:
            self.finish_reason = "stop"
            self.stop_reason = None if last == EOS and not sampling.ignore_eos else last
        elif self.num_tokens >= self._max_tokens:
            self.finish_reason = "length"
        show = not by_id or sampling.include_stop_str_in_output
        text = self._stream.push(token_ids if show else token_ids[:-1])
        if self._matcher is None:
            return text
        text = self._matcher.push(text, self.num_tokens > sampling.min_tokens)
        if self._matcher.matched is not None and not by_id:
            self.finish_reason, self.stop_reason = "stop", self._matcher.matched
        return text + self._matcher.flush() if self.finish_reason is not None else text

    def _scripted_token(self) -> int | None:
        """What the script wants next; after its end the end of sequence, where that would end the answer."""
        script = self._script
        if script is None:
            return None
        if self.num_tokens < len(script.token_ids):
            return script.token_ids[self.num_tokens]
        may_end = not self._sampling.ignore_eos and self.num_tokens >= self._sampling.min_tokens
        return EOS if may_end else None

    def _scripted_logprob(self) -> float | None:
        script = self._script
        return None if script is None or self.num_tokens >= len(script.logprobs) else script.logprobs[self.num_tokens]

    def _inside_item(self) -> bool:
        script, position = self._script, self.num_tokens
        if script is None or not 0 < position < len(script.items) or self.failing:
            return False
        return script.items[position] == script.items[position - 1]

    def _times(self) -> EngineTimes:
        return EngineTimes(
            queue_s=self.admitted_at - self.arrived_at,
            prefill_s=self.first_token_at - self.admitted_at,
            decode_s=time.monotonic() - self.first_token_at,
        )
