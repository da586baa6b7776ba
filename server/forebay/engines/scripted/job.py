"""A request inside the scripted engine."""

from __future__ import annotations

from collections.abc import Callable

from forebay.engines.mailbox import DeltaMailbox
from forebay.engines.scripted.directives import Directives
from forebay.types import GenerationRequest


class Job:
    """Where its choices' Deltas go, how many choices are not over, and whether its consumer has left."""

    __slots__ = ("closed", "directives", "mailbox", "num_open", "request")

    def __init__(self, request: GenerationRequest, directives: Directives, on_close: Callable[[Job], None]) -> None:
        self.request = request
        self.directives = directives
        self.mailbox = DeltaMailbox(lambda: on_close(self), whole=request.whole)
        self.num_open = request.num_choices
        self.closed = False
