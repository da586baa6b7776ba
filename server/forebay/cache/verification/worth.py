"""When the model's time costs less than the answer that it may save."""

from __future__ import annotations

SPAN = 100
"""Over how many times are averaged."""

MARGIN = 2.0
"""By how much what is saved must be more than what is spent: a miss waits for the question in vain, too."""

LEAST_TOKENS = 16
"""Below that an answer is generated sooner than a question is read."""


class Times:
    """Seconds, measured: of a question to the model, and of a token of an answer."""

    __slots__ = ("_ask_s", "_num_answers", "_num_asks", "_token_s")

    def __init__(self) -> None:
        self._ask_s = 0.0
        self._num_asks = 0
        self._token_s = 0.0
        self._num_answers = 0

    @property
    def ask_s(self) -> float:
        return self._ask_s

    def asked(self, seconds: float) -> None:
        self._num_asks = min(self._num_asks + 1, SPAN)
        self._ask_s += (seconds - self._ask_s) / self._num_asks

    def generated(self, num_tokens: int, seconds: float) -> None:
        """An answer of so many tokens took the engine so long, its prompt included."""
        if num_tokens:
            self._num_answers = min(self._num_answers + 1, SPAN)
            self._token_s += (seconds / num_tokens - self._token_s) / self._num_answers

    def is_worth(self, num_tokens: int, chance: float) -> bool:
        """`num_tokens`: of the stored answer; `chance`: that it will be served once the model was asked.

        While no answer was timed, a token counts as much as an eighth of a question.
        """
        token_s = self._token_s if self._num_answers else self._ask_s / 8
        return num_tokens >= LEAST_TOKENS and chance * num_tokens * token_s > MARGIN * self._ask_s
