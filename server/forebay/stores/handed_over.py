"""Writes on their way to a commit, and the telling of what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from forebay.stores.writing import Writing

Done = Callable[[Any], None] | asyncio.Future[Any]
"""Gets an outcome: what was asked for, or an exception."""

log = structlog.get_logger(__name__)


class Write:
    """`kept`: to be tried again until the disk takes it."""

    __slots__ = ("done", "item", "kept", "writing")

    def __init__(self, writing: Writing, item: Any, done: Done | None, kept: bool) -> None:
        self.writing = writing
        self.item = item
        self.done = done
        self.kept = kept


def rank(write: Write) -> int:
    return write.writing.rank


def with_outcomes(writes: list[Write], results: Sequence[Any] | None) -> list[tuple[Write, Any]]:
    return list(zip(writes, results or [None] * len(writes), strict=True))


def tell_all(told: list[tuple[Done, Any]]) -> None:
    """On the loop."""
    for done, outcome in told:
        if isinstance(done, asyncio.Future):
            if done.done():
                continue
            if isinstance(outcome, BaseException):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)
            continue
        try:
            done(outcome)
        except Exception:  # the others are to hear of theirs
            log.exception("commit_not_heard")
