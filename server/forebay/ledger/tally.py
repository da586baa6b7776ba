"""What this process has handed to its ledger, and what the engines' streams say they did for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from forebay.types import NO_WORK, EngineWork, Usage

WATCH_S = 30.0
"""How long a stream that was cut short is watched for what its engine still does."""


class Stream(Protocol):
    """See `forebay.types.CountedDeltas`."""

    @property
    def num_tokens(self) -> int: ...
    @property
    def work(self) -> EngineWork: ...


class Tally:
    """Plain sums since the process began, of requests that are settled; all on the event loop.

    `prompt_tokens`, `cached_tokens` and `completion_tokens` are those of the settlements, charged or not; beside them
    stand the streams' own counts, `num_streamed` tokens and the engine's `work`. Between a settlement's prompt and the
    engine's work on it there may be a difference for a reason:

    - `read_again`: choices beyond the first read the prompt anew, and so do those that were pre-empted;
    - `left_unread`: client or engine was gone before the prompt was read, or before it was told how much was cached;
    - `unexplained`: the answer is complete, and the engine has read less of its prompt than was settled.
    """

    def __init__(self) -> None:
        self.num_requests = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.num_streamed = 0
        self._computed = self._generated = self._untold = 0
        self.read_again = 0
        self.left_unread = 0
        self.unexplained = 0
        self._left = NO_WORK
        self._cut_short: deque[tuple[float, Stream, EngineWork]] = deque()

    @property
    def work(self) -> EngineWork:
        return EngineWork(self._computed, self._generated, self._untold)

    def settled(self, done: Usage, streams: Sequence[Stream], *, complete: bool) -> None:
        """`done`: what the engine has done for the request, charged or not."""
        self.num_requests += 1
        self.prompt_tokens += done.prompt_tokens
        self.cached_tokens += done.cached_tokens
        self.completion_tokens += done.completion_tokens
        computed = 0
        for stream in streams:
            self.num_streamed += stream.num_tokens
            work = stream.work
            computed += work.prompt_tokens
            self._generated += work.generated_tokens
            self._untold += work.untold_prompt_tokens
        self._computed += computed
        more = computed - (done.prompt_tokens - done.cached_tokens)
        if more > 0:
            self.read_again += more
        elif complete:
            self.unexplained -= more
        else:
            self.left_unread -= more
        if not complete:
            now = time.monotonic()
            self._cut_short.extend((now, stream, stream.work) for stream in streams)
        while self._cut_short and self._cut_short[0][0] < time.monotonic() - WATCH_S:
            _, stream, then = self._cut_short.popleft()
            self._left = add(self._left, stream.work, less=then)

    @property
    def left(self) -> EngineWork:
        """What engines did after a request was settled: the step that was under way when a client left."""
        left = self._left
        for _, stream, then in self._cut_short:
            left = add(left, stream.work, less=then)
        return left


def work_of(streams: Iterable[Stream]) -> EngineWork:
    """All of it together."""
    total = NO_WORK
    for stream in streams:
        total = add(total, stream.work)
    return total


def add(one: EngineWork, other: EngineWork, *, less: EngineWork = NO_WORK) -> EngineWork:
    return EngineWork(
        one.prompt_tokens + other.prompt_tokens - less.prompt_tokens,
        one.generated_tokens + other.generated_tokens - less.generated_tokens,
        one.untold_prompt_tokens + other.untold_prompt_tokens - less.untold_prompt_tokens,
    )
