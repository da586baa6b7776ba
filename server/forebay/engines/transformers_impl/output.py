"""A row's new token to the Delta its client gets: text, stop conditions, end of the choice."""

from __future__ import annotations

import time

from forebay.engines.transformers_impl.sequence import Sequence
from forebay.types import Delta, FinishReason, TokenLogprob


def append_token(
    sequence: Sequence, token_id: int, logprob: TokenLogprob | None, eos_id: int | None, max_model_len: int
) -> Delta:
    """Add `token_id` to the row; the Delta has a `finish_reason` if the row is done with it.

    As in vLLM: an end token ends the choice, is its stop reason only if the client named it, and has no text of its own
    unless stop strings are to be included; a stop string that the token completes wins over the length limit; the token
    that completed it is counted.
    """
    sampling = sequence.sampling
    sequence.output_ids.append(token_id)
    if sequence.first_token_at is None:
        sequence.first_token_at = time.perf_counter()
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    if token_id in sequence.end_ids:
        finish_reason = "stop"
        the_clients = token_id in sampling.stop_token_ids and (token_id != eos_id or sampling.ignore_eos)
        stop_reason = token_id if the_clients else None
    elif len(sequence.output_ids) >= sampling.max_tokens or sequence.num_tokens >= max_model_len:
        finish_reason = "length"
    text = ""
    if finish_reason != "stop" or sampling.include_stop_str_in_output:
        text = sequence.detokenizer.push(token_id)
        text = sequence.matcher.push(text, may_stop=len(sequence.output_ids) > sampling.min_tokens)
        if sequence.matcher.matched is not None:
            finish_reason, stop_reason = "stop", sequence.matcher.matched
    if finish_reason is not None:
        text += sequence.matcher.flush()
    return Delta(
        index=sequence.index,
        text=text,
        token_ids=(token_id,),
        logprobs=() if logprob is None else (logprob,),
        finish_reason=finish_reason,
        stop_reason=stop_reason,
        times=None if finish_reason is None else sequence.times(),
    )
