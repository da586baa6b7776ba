"""A served model whose word on pairs is told beforehand; see `forebay.cache.verifier.Verifier`."""

from __future__ import annotations


class ToldWord:
    """Says the same of all pairs. `name` None: it has not earned to be asked about questions."""

    judge_miss = 0.0

    def __init__(self, *, of_questions: float | None = None, of_answers: bool | None = None, name: str | None = None):
        self.of_questions = of_questions
        self.of_answers = of_answers
        self.name = name
        self.is_settled = True
        self.pairs: list[tuple[str, str]] = []
        """Of questions."""

    def is_worth(self, num_tokens: int, chance: float) -> bool:
        return True

    def generated(self, num_tokens: int, engine_s: float) -> None:
        pass

    async def same_question(self, asked: str, stored: str, tenant: str) -> float | None:
        self.pairs.append((asked, stored))
        return self.of_questions

    async def same_answer(self, question: str, one: str, other: str, tenant: str) -> bool | None:
        return self.of_answers
