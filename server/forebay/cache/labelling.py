"""Labels: a request's own answer against the stored one that was its candidate, compared in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import structlog

from forebay.cache.comparison import Comparison
from forebay.cache.semantic import Candidate
from forebay.types import Delta

MAX_WAITING = 256
"""Answers that wait to be compared; further labels are lost. Which these are has nothing to do with how they would
have turned out, as none is looked at before."""

COMPARE_S = 10.0
"""What comparing may take; what takes longer counts as different."""

Label = Literal["same", "wrong", "lost"]

log = structlog.get_logger(__name__)


class Labelling:
    """`begin`, then `tell` for each own answer, then `close`."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._waiting: asyncio.Queue[tuple[Candidate, str]] = asyncio.Queue(MAX_WAITING)
        self._task: asyncio.Task[None] | None = None
        self.num_labels: Counter[Label] = Counter()

    def begin(self) -> None:
        """On the running loop."""
        self._task = asyncio.create_task(self._work(), name="cache-labels-judge")

    async def close(self) -> None:
        """Idempotent. What waits is lost."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def tell(self, candidate: Candidate, own: Sequence[Delta]) -> None:
        """The request's own answer, whole; one that was cut off is not the stored one, which ended by itself."""
        if not candidate.ruling.labelled:
            return
        if own[-1].finish_reason != "stop":
            self._learn(candidate, same=False)
            return
        try:
            self._waiting.put_nowait((candidate, answer_text(own)))
        except asyncio.QueueFull:
            self.lose(candidate)

    def lose(self, candidate: Candidate) -> None:
        """There is no own answer."""
        if candidate.ruling.labelled:
            self._learn(candidate, same=None)

    async def _work(self) -> None:
        while True:
            candidate, own = await self._waiting.get()
            self._learn(candidate, same=await self._same(candidate, own))

    async def _same(self, candidate: Candidate, own: str) -> bool:
        """Where it cannot be told: no, as those that cannot be told are not like the others."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMPARE_S):
                try:
                    stored = candidate.entry
                    return await self._comparison.same(candidate.asked, answer_text(stored.deltas), own, stored.tenant)
                except TimeoutError:
                    raise
                except Exception as exc:
                    log.warning("cache_answers_not_compared", exc_info=exc)
        return False

    def _learn(self, candidate: Candidate, *, same: bool | None) -> None:
        self.num_labels["lost" if same is None else "same" if same else "wrong"] += 1
        try:
            candidate.learn(same=same)
        except Exception:  # one owner's labels are not to cost the others theirs
            log.exception("cache_label_not_counted")


def answer_text(deltas: Sequence[Delta]) -> str:
    """Without the reasoning."""
    return "".join([delta.text for delta in deltas])
