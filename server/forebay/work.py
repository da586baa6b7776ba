"""What one HTTP request asks of the engine, once its text has been read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from forebay.chat.reasoning import ReasoningFamily
from forebay.types import GenerationRequest, Sampling
from forebay.values import value


@value
class Work:
    """What one HTTP request asks of the engine, once its text has been read; all have the same `num_choices`."""

    requests: Sequence[GenerationRequest]
    family: ReasoningFamily | None = None
    include_reasoning: bool = True
    can_clamp: bool = False
    """The client has set no limit to its tokens, so answers may end earlier where a budget affords less."""

    @property
    def prompt_tokens(self) -> int:
        return sum([len(request.prompt.token_ids) for request in self.requests])

    @property
    def max_completion_tokens(self) -> int:
        return sum([request.num_choices * request.sampling.max_tokens for request in self.requests])

    @property
    def num_choices(self) -> int:
        """Of all requests together."""
        return sum([request.num_choices for request in self.requests])

    def clamped(self, max_completion_tokens: int) -> Work:
        """The same with at most so many tokens, evenly for all choices."""
        each = max_completion_tokens // self.num_choices
        return replace(
            self,
            requests=[replace(request, sampling=_shortened(request.sampling, each)) for request in self.requests],
        )


def _shortened(sampling: Sampling, max_tokens: int) -> Sampling:
    most = min(sampling.max_tokens, max_tokens)
    return replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))
