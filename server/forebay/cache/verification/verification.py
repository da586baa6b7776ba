"""Verification by the served model, and the judge: the same model, asked for one token, once it has earned it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Any, Literal

import structlog

from forebay.background import Background
from forebay.cache.verification.asking import Asking, Trouble, Word
from forebay.cache.verification.check_set import TASKS, Task, check_set
from forebay.cache.verification.checking import Checked, check
from forebay.cache.verification.grading import Grade, band_of
from forebay.cache.verification.wording import answers_prompt, questions_prompt
from forebay.cache.verification.worth import Times
from forebay.engines.host import EngineHost

VERSION = 1
"""Raised with every change of what is asked, or of how much it counts."""

Standing = Literal["waiting", "checking", "earned", "failed", "slow", "unavailable"]
"""`waiting`: for an engine; `checking`: the check set is being asked; `earned`: the model is asked; the others: it is
not, see `checking.Result`."""

Outcome = Literal["yes", "leaning", "no"] | Trouble

LOOK_EVERY_S = 0.5
"""How often it is looked whether there is an engine to check."""

MOST_CHECKS = 3
"""Times that the check set is begun, where the engine goes away meanwhile."""

QUESTION_S, QUESTION_WAIT_S = 1.0, 0.05
"""What a question for a request that waits may take; and how long it waits for the engine to have time for it."""

JUDGE_S, JUDGE_WAIT_S = 10.0, 60.0
"""The same for what nobody waits for."""

log = structlog.get_logger(__name__)


class Verification:
    """Lives on one event loop: `begin`, then questions from anywhere, then `close`. One model, whose engine may die and
    come back. Questions that the model is not asked, or does not answer, have None for an answer: whoever asks goes on
    as if there were no verification."""

    def __init__(self, host: EngineHost, background: Background) -> None:
        self._host = host
        self._asking = Asking(host, background)
        self._checked: dict[Task, Checked] = {}
        self._task: asyncio.Task[None] | None = None
        self._times = Times()
        self.standings: dict[Task, Standing] = dict.fromkeys(TASKS, "waiting")
        self.outcomes: Counter[tuple[Task, Outcome]] = Counter()
        """Of what was asked for requests and labels, not of the check set."""
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0

    def begin(self) -> None:
        """On the running loop. Checks the model once there is an engine; loads none."""
        self._task = asyncio.create_task(self._check_all(), name="verification")

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # What is asked

    async def same_question(self, asked: str, stored: str, tenant: str) -> float | None:
        """The chance that one answer serves both, in [0, 1), where it does for half of all pairs: see `cache/odds.py`.

        Takes 1.05 s at most, and next to nothing where the engine is busy. `tenant`: who asks.
        """
        grade = self._earned("questions")
        if grade is None:
            return None
        score = await self._ask("questions", questions_prompt(stored, asked), tenant, QUESTION_S, QUESTION_WAIT_S)
        return None if score is None else grade.chance(score)

    async def same_answer(self, question: str, answer: str, other: str, tenant: str) -> bool | None:
        """Whether both answers to the question say the same. Waits a minute at most for the engine to have time."""
        if self._earned("answers") is None:
            return None
        score = await self._ask("answers", answers_prompt(question, answer, other), tenant, JUDGE_S, JUDGE_WAIT_S)
        return None if score is None else score > 0

    def is_worth(self, num_tokens: int, chance: float) -> bool:
        """Whether a question costs less than the answer that it may save: so many tokens, with this chance."""
        return self._times.is_worth(num_tokens, chance)

    def generated(self, num_tokens: int, engine_s: float) -> None:
        """An answer of so many tokens took the engine so long: what a hit saves."""
        self._times.generated(num_tokens, engine_s)

    # What is shown

    def grade(self, task: Task) -> Grade | None:
        """What the check set has shown, passed or not; None before."""
        checked = self._checked.get(task)
        return None if checked is None else checked.grade

    @property
    def is_settled(self) -> bool:
        """Whether the check is over; what it has shown stays, then."""
        return not {"waiting", "checking"} & set(self.standings.values())

    @property
    def name(self) -> str | None:
        """None where questions are not asked."""
        return None if self._earned("questions") is None else f"verification-{VERSION}"

    @property
    def judge_miss(self) -> float:
        """Share of different answers that the judge calls the same, at its upper bound; 0 while it does not judge."""
        grade = self._earned("answers")
        return 0.0 if grade is None else grade.miss

    @property
    def ask_s(self) -> float:
        """Seconds that a question takes, in the mean of the last ones; 0 before the first."""
        return self._times.ask_s

    def summary(self) -> dict[str, Any]:
        """For status answers: plain values."""
        return {task: {"standing": self.standings[task], **self._counts(task)} for task in TASKS}

    def _counts(self, task: Task) -> dict[str, Any]:
        """What the check set has shown."""
        checked = self._checked.get(task)
        if checked is None:
            return {}
        grade = checked.grade
        return {
            "same": asdict(grade.same),
            "different": asdict(grade.different),
            "ratio": round(grade.ratio("yes"), 2),
            "ask_s": round(checked.ask_s, 4),
        }

    # Inside

    def _earned(self, task: Task) -> Grade | None:
        return self._checked[task].grade if self.standings[task] == "earned" else None

    async def _ask(self, task: Task, text: str, tenant: str, timeout_s: float, wait_s: float) -> float | None:
        found = await self._asking.ask(text, tenant, timeout_s, wait_s=wait_s)
        if not isinstance(found, Word):
            self.outcomes[task, found] += 1
            return None
        self.outcomes[task, band_of(found.score)] += 1
        self.num_prompt_tokens += found.num_prompt_tokens
        self.num_cached_tokens += found.num_cached_tokens
        if task == "questions":
            self._times.asked(found.seconds)
        return found.score

    async def _check_all(self) -> None:
        for task in TASKS:
            checked = await self._check(task)
            self._checked[task] = checked
            self.standings[task] = "earned" if checked.result == "passed" else checked.result
            if task == "questions":
                self._times.asked(checked.ask_s)
            log.info("cache_verification", task=task, standing=self.standings[task], **self._counts(task))

    async def _check(self, task: Task) -> Checked:
        checks, most_ask_s = check_set(task), QUESTION_S if task == "questions" else JUDGE_S
        for _ in range(MOST_CHECKS):
            while self._host.current is None:  # noqa: ASYNC110 - the host tells nobody, and nobody waits for this
                await asyncio.sleep(LOOK_EVERY_S)
            self.standings[task] = "checking"
            checked = await check(self._asking, checks, most_ask_s)
            if checked.result != "unavailable":
                break
        return checked
