"""Our records into vLLM's and back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from forebay.engines.vllm_impl.names import OUTPUT_KIND, SAMPLING_PARAMS, load
from forebay.engines.vocabulary import Vocabulary
from forebay.errors import EngineUnavailable, InternalError
from forebay.types import Delta, EngineTimes, FinishReason, GenerationRequest, TokenLogprob

SEEDS = 1 << 63
FINISH_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "repetition": "stop"}


def sampling_params(request: GenerationRequest, num_choices: int) -> Any:
    """vLLM's SamplingParams. vLLM reads a seed of -1 as no seed, so seeds are folded to 0..2**63-1."""
    sampling = request.sampling
    return load(SAMPLING_PARAMS)(
        n=num_choices,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or 0,
        min_p=sampling.min_p,
        seed=None if sampling.seed is None else sampling.seed % SEEDS,
        stop=list(sampling.stop),
        stop_token_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        max_tokens=sampling.max_tokens,
        min_tokens=sampling.min_tokens,
        logprobs=sampling.num_logprobs,
        skip_special_tokens=sampling.skip_special_tokens,
        include_stop_str_in_output=sampling.include_stop_str_in_output,
        output_kind=load(OUTPUT_KIND).DELTA,
        logit_bias=dict(sampling.logit_bias) or None,
    )


class DeltaReader:
    """Turns the outputs of one vLLM request into Deltas."""

    def __init__(self, request: GenerationRequest, vocabulary: Vocabulary) -> None:
        self._num_logprobs = request.sampling.num_logprobs or 0
        self._stop_token_ids = frozenset(request.sampling.stop_token_ids)
        self._vocabulary = vocabulary
        self.num_cached_tokens: int | None = None
        """Of the prompt, when its first choice was read; None before."""
        self._started_at = time.monotonic()
        self._first_token_at: dict[int, float] = {}

    def read(self, output: Any) -> list[Delta]:
        """The Deltas of one RequestOutput, one a choice."""
        if self.num_cached_tokens is None:  # later choices also find what the first one has put into the cache
            self.num_cached_tokens = output.num_cached_tokens or 0
        deltas = []
        for choice in output.outputs:
            if choice.index not in self._first_token_at:
                self._first_token_at[choice.index] = time.monotonic()
            if choice.finish_reason is None and not choice.logprobs:
                deltas.append(self.piece(choice.index, choice.text, choice.token_ids))
            else:
                deltas.append(self._read_choice(choice, output.metrics))
        return deltas

    def piece(self, index: int, text: str, token_ids: Sequence[int]) -> Delta:
        """Of a choice that has begun and goes on, without logprobs."""
        return Delta(index, text, tuple(token_ids), num_cached_tokens=self.num_cached_tokens or 0)

    def _read_choice(self, choice: Any, metrics: Any) -> Delta:
        finish_reason = self._finish_reason(choice.finish_reason)
        logprobs = zip(choice.token_ids, choice.logprobs, strict=True) if choice.logprobs else ()
        return Delta(
            index=choice.index,
            text=choice.text,
            token_ids=tuple(choice.token_ids),
            logprobs=tuple([self._logprob(*entry) for entry in logprobs]),
            finish_reason=finish_reason,
            stop_reason=self._stop_reason(choice.stop_reason),
            num_cached_tokens=self.num_cached_tokens or 0,
            times=None if finish_reason is None else self._times(choice.index, metrics),
        )

    def _finish_reason(self, reason: str | None) -> FinishReason | None:
        if reason is None:
            return None
        if reason == "abort":  # not by us: who closes the iterator never sees it
            raise EngineUnavailable("The model's engine is shutting down.", retry_after_s=5)
        ours = FINISH_REASONS.get(reason)
        if ours is None:
            raise InternalError("The model's engine failed on this request.")
        return ours

    def _stop_reason(self, reason: str | int | None) -> str | int | None:
        """vLLM names the token of a model's second end-of-sequence token too; that is no stop of the client's."""
        return None if isinstance(reason, int) and reason not in self._stop_token_ids else reason

    def _logprob(self, token_id: int, position: Any) -> TokenLogprob:
        """`position` maps token ids to vLLM's Logprob: the chosen token's and those of the most likely."""
        best = sorted(position.items(), key=lambda entry: entry[1].rank)[: self._num_logprobs]
        chosen = (token_id, position[token_id].logprob)
        return self._vocabulary.logprob(chosen, [(other, entry.logprob) for other, entry in best])

    def _times(self, index: int, metrics: Any) -> EngineTimes:
        """vLLM's, whose clock runs in the engine process; ours where it keeps none."""
        if metrics is None or not metrics.scheduled_ts:
            first, now = self._first_token_at[index], time.monotonic()
            return EngineTimes(queue_s=0.0, prefill_s=first - self._started_at, decode_s=now - first)
        return EngineTimes(
            queue_s=max(0.0, metrics.scheduled_ts - metrics.queued_ts),
            prefill_s=max(0.0, metrics.first_token_ts - metrics.scheduled_ts),
            decode_s=max(0.0, metrics.last_token_ts - metrics.first_token_ts),
        )
