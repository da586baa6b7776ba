"""What the served model may say of a pair, once it has earned to be asked."""

from __future__ import annotations

from typing import Protocol


class Verifier(Protocol):
    """None is its answer where it has not earned it, or cannot be asked right now. It raises nothing.

    `tenant`: whose texts they are; only among those can the time of asking tell anything.
    """

    @property
    def is_settled(self) -> bool:
        """Whether it is known if it is asked or not; that stays as it is, then."""

    @property
    def name(self) -> str | None:
        """How it is asked about questions, None if it is not: scores are comparable only under one name."""

    @property
    def judge_miss(self) -> float:
        """Share of different answers that it may take for the same, where it judges."""

    def is_worth(self, num_tokens: int, chance: float) -> bool:
        """Whether asking costs less than it may save: an answer of so many tokens, with this chance."""

    def generated(self, num_tokens: int, engine_s: float) -> None:
        """What an answer costs that is no hit."""

    async def same_question(self, asked: str, stored: str, tenant: str) -> float | None:
        """Chance, in [0, 1], that an answer to one is an answer to the other, if it were so for half of all pairs."""

    async def same_answer(self, question: str, one: str, other: str, tenant: str) -> bool | None:
        """Whether two answers to a question say the same."""
