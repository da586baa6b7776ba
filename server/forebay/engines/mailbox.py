"""Where an engine leaves Deltas for one request, merged per choice while its consumer is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from forebay.types import Delta, EngineWork, Take

RELEASE_S = 1.0
"""A producer that hangs must not keep an error from its client."""
GATHERED = 16
"""Tokens for which a consumer that wants a choice whole is woken, after the first."""


def merge_deltas(deltas: list[Delta]) -> Delta:
    """One Delta for consecutive Deltas of one choice; the list is not empty."""
    if len(deltas) == 1:
        return deltas[0]
    last = deltas[-1]
    return Delta(
        index=last.index,
        text="".join([delta.text for delta in deltas]),
        token_ids=tuple([token for delta in deltas for token in delta.token_ids]),
        logprobs=tuple([logprob for delta in deltas for logprob in delta.logprobs]),
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        num_cached_tokens=max([delta.num_cached_tokens for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        num_reasoning_tokens=sum([delta.num_reasoning_tokens for delta in deltas]),
        times=last.times,
    )


class DeltaMailbox:
    """The async iterator that an engine's `generate` hands out: one producer, one consumer, one event loop.

    The producer calls `put`, then once `close` or `fail`; from another thread through `loop.call_soon_threadsafe`.
    Deltas of one choice merge while nobody takes them, so a slow consumer costs memory for its tokens only; the choice
    that has waited longest is taken first. What was put is delivered before the end or the failure. A consumer that
    wants them `whole` gets the first delta at once, and is then woken by an end or for `GATHERED` tokens: a wake is a
    turn of its task.

    `aclose` and a cancellation while waiting end it for good: `on_close` is then called, at most once and only if the
    producer had not ended, and later puts are counted in `num_tokens` and dropped. Where `on_close` returns an
    awaitable, `aclose` waits for it: the producer has then let go.
    """

    __slots__ = (
        "_error",
        "_loop",
        "_next_wake",
        "_on_close",
        "_pending",
        "_released",
        "_waiter",
        "_whole",
        "num_prompt_tokens",
        "num_tokens",
        "take",
    )

    def __init__(self, on_close: Callable[[], asyncio.Future[None] | None], *, whole: bool = False) -> None:
        self.num_tokens = 0
        self.num_prompt_tokens = 0
        """Computed for it; the producer counts them."""
        self.take: Take | None = None
        self._loop = asyncio.get_running_loop()
        self._on_close: Callable[[], asyncio.Future[None] | None] | None = on_close
        """None once the producer has ended or was told to: whoever it belongs to is free to go."""
        self._pending: dict[int, list[Delta]] = {}
        self._waiter: asyncio.Future[Delta | None] | None = None
        """The consumer's, while there is nothing for it; its result is the next Delta, None to look again."""
        self._released: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._whole = whole
        self._next_wake = 1
        """Of a consumer that wants them whole: not before so many tokens."""

    @property
    def work(self) -> EngineWork:
        return EngineWork(self.num_prompt_tokens, self.num_tokens)

    def put(self, delta: Delta) -> None:
        self.num_tokens += len(delta.token_ids)
        if self._on_close is None:
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if not self._whole:
                try:
                    if self.take is None or not self.take(delta):
                        waiter.set_result(delta)
                except Exception as exc:  # the consumer's to hear of, not the producer's
                    waiter.set_exception(exc)
                return
            if delta.finish_reason is not None or self.num_tokens >= self._next_wake:
                self._next_wake = self.num_tokens + GATHERED
                waiter.set_result(None)
        waiting = self._pending.get(delta.index)
        if waiting is None:
            self._pending[delta.index] = [delta]
        else:
            waiting.append(delta)

    def fail(self, error: BaseException) -> None:
        """Ends with `error`, raised to the consumer after what was put; without effect if already ended."""
        if self._on_close is not None:
            self._error = error
            self.close()

    def close(self) -> None:
        """Ends without error, after what was put; without effect if already ended."""
        self._on_close = self.take = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> DeltaMailbox:
        return self

    async def __anext__(self) -> Delta:
        while not self._pending:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._on_close is None:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("a DeltaMailbox has one consumer")
            waiter: asyncio.Future[Delta | None] = self._loop.create_future()
            self._waiter = waiter
            try:
                delta = await waiter
            except asyncio.CancelledError:
                self._leave()
                raise
            finally:
                self._waiter = None
            if delta is not None:
                return delta
        return merge_deltas(self._pending.pop(next(iter(self._pending))))

    async def aclose(self) -> None:
        """The consumer leaves: aborts the producer unless it has ended; idempotent."""
        self._leave()
        if self._released is not None:
            await asyncio.wait((self._released,), timeout=RELEASE_S)

    def _leave(self) -> None:
        self._pending.clear()
        self._error = self.take = None
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            self._released = on_close()
