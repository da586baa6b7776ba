"""An answer that is generated again after some of it was handed out: what is new in it."""

from __future__ import annotations

from typing import TypeVar

from forebay.types import Delta

S = TypeVar("S", str, tuple[int, ...])


class Diverged(Exception):
    """The second run says something else than the first one has said."""


class CatchUp:
    """Takes the deltas of the second run, however they are cut, and gives what goes beyond the first one's."""

    def __init__(self, told: Delta) -> None:
        """`told`: all that was handed out, as one delta."""
        self._told = told
        self._num_text = 0
        self._num_reasoning = 0
        self._num_ids = 0
        self._num_reasoning_tokens = 0

    @property
    def done(self) -> bool:
        """All that was told has been said again."""
        told = self._told
        return (
            self._num_text == len(told.text)
            and self._num_reasoning == len(told.reasoning)
            and self._num_ids == len(told.token_ids)
        )

    def push(self, delta: Delta) -> Delta:
        """What is new in it, maybe nothing. Raises `Diverged`."""
        told = self._told
        text = _rest(delta.text, told.text, self._num_text)
        reasoning = _rest(delta.reasoning, told.reasoning, self._num_reasoning)
        ids = _rest(delta.token_ids, told.token_ids, self._num_ids)
        self._num_text += len(delta.text) - len(text)
        self._num_reasoning += len(delta.reasoning) - len(reasoning)
        self._num_ids += len(delta.token_ids) - len(ids)
        known = min(delta.num_reasoning_tokens, told.num_reasoning_tokens - self._num_reasoning_tokens)
        self._num_reasoning_tokens += known
        if delta.finish_reason is not None and not self.done:
            raise Diverged
        return Delta(
            index=delta.index,
            text=text,
            token_ids=ids,
            logprobs=delta.logprobs[len(delta.logprobs) - len(ids) :] if delta.logprobs else (),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
            num_cached_tokens=delta.num_cached_tokens,
            reasoning=reasoning,
            num_reasoning_tokens=delta.num_reasoning_tokens - known,
            times=delta.times,
        )


def is_empty(delta: Delta) -> bool:
    return not (delta.text or delta.reasoning or delta.token_ids or delta.finish_reason or delta.num_reasoning_tokens)


def _rest(said: S, told: S, position: int) -> S:
    """What of `said` goes beyond the end of `told`, read on from there. Raises `Diverged`."""
    expected = told[position : position + len(said)]
    if said[: len(expected)] != expected:
        raise Diverged
    return said[len(expected) :]
