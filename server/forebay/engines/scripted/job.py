"""A request inside the scripted engine."""

from __future__ import annotations

from collections.abc import Callable

from forebay.engines.mailbox import DeltaMailbox
from forebay.engines.scripted.choice import Choice
from forebay.engines.scripted.directives import Directives
from forebay.engines.scripted.model import PseudoModel
from forebay.types import GenerationRequest


class Job:
    """Its choices, where their Deltas go, and whether its consumer has left."""

    __slots__ = ("choices", "closed", "directives", "mailbox", "num_open", "request")

    def __init__(
        self,
        request: GenerationRequest,
        directives: Directives,
        model: PseudoModel,
        max_model_len: int,
        on_close: Callable[[Job], None],
    ) -> None:
        self.request = request
        self.directives = directives
        self.mailbox = DeltaMailbox(lambda: on_close(self))
        self.choices = [
            Choice(request, index, model, directives.script_for(index), directives.failure, max_model_len)
            for index in range(request.num_choices)
        ]
        self.num_open = len(self.choices)
        self.closed = False
