"""What the served model may say of a pair, once it has earned to be asked."""

from __future__ import annotations

from typing import Protocol


class Verifier(Protocol):
    """None is its answer where it has not earned it, or cannot be asked right now. It raises nothing."""

    @property
    def name(self) -> str:
        """Which model, asked how: scores that it has a part in are comparable only under one name."""

    async def same_question(self, asked: str, stored: str) -> float | None:
        """Chance, in [0, 1], that an answer to one is an answer to the other."""

    async def same_answer(self, question: str, one: str, other: str) -> bool | None:
        """Whether two answers to a question say the same."""
