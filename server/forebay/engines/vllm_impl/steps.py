"""Tokens of choices that just go on, taken out of a step's outputs before vLLM makes records of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

OnTokens = Callable[[Any, list[int]], None]
"""Called with a choice's detokenizer and its next tokens; raises nothing."""


class Steps:
    """In front of an OutputProcessor's `process_outputs`, which is called with the outputs of a step.

    vLLM looks for stop strings in a token's text and makes a RequestOutput and a CompletionOutput of it. A choice that
    goes on, without stop strings and logprobs, needs the text alone. Its first token, its last one and all that is
    unusual go vLLM's way; whichever way one went, vLLM's counts and texts are right after it.
    """

    def __init__(self, processor: Any) -> None:
        self._states = processor.request_states
        self._process = processor.process_outputs
        processor.process_outputs = self.process

    def take(self, request_id: str, on_tokens: OnTokens) -> None:
        """Of a request that vLLM knows by this id, as long as it does; one of several choices it knows by others."""
        state = self._states.get(request_id)
        if state is not None:
            state.forebay_take = partial(on_tokens, state.detokenizer)

    def process(self, outputs: list[Any], now_s: float | None, counted: Any, **more: Any) -> Any:
        """OutputProcessor's. `now_s` is the engine process's clock, `counted` the IterationStats of the step."""
        if counted is None:
            return self._process(outputs, now_s, counted, **more)
        others = []
        for output in outputs:
            state = self._states.get(output.request_id)
            take = getattr(state, "forebay_take", None)
            if (
                take is None
                or state.is_prefilling
                or output.finish_reason is not None
                or output.events is not None
                or output.num_nans_in_logits
            ):
                others.append(output)
                continue
            token_ids, stats = output.new_token_ids, state.stats
            counted.num_generation_tokens += len(token_ids)
            counted.inter_token_latencies_iter.append(now_s - stats.last_token_ts)
            stats.num_generation_tokens += len(token_ids)
            stats.last_token_ts = now_s
            take(token_ids)
        return self._process(others, now_s, counted, **more)


def next_text(detokenizer: Any, token_ids: list[int]) -> str:
    """What vLLM's `update` and `get_next_output_text` come to without stop strings."""
    text = ""
    for token_id in token_ids:
        detokenizer.token_ids.append(token_id)
        text += detokenizer.decode_next(token_id)
    return text
