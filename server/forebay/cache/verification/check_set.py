"""Pairs whose truth is known, by which a model shows what its word is worth. They are ours, and balanced."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from forebay.cache.verification.wording import answers_prompt, questions_prompt
from forebay.values import value

Task = Literal["questions", "answers"]
"""Whether two questions have one answer; whether two answers to a question are one."""

TASKS: tuple[Task, ...] = ("questions", "answers")


@value
class Check:
    """`prompt`: what the model is asked. `same`: what is true."""

    prompt: str
    same: bool


@cache
def check_set(task: Task) -> tuple[Check, ...]:
    """In turn one that is the same and one that is not, of the same number each.

    A line of the files beside the calibration is `question | in other words | another question`, or
    `question | answer | in other words | another answer`; which of the first two comes first alternates.
    """
    text = files("forebay.cache").joinpath("data", f"check-{task}.txt").read_text(encoding="utf-8")
    checks: list[Check] = []
    for number, line in enumerate(line for line in text.splitlines() if line and not line.startswith("#")):
        *question, first, same, other = line.split(" | ")
        for second, is_same in ((same, True), (other, False)):
            one, two = (first, second) if number % 2 else (second, first)
            prompt = answers_prompt(question[0], one, two) if task == "answers" else questions_prompt(one, two)
            checks.append(Check(prompt, is_same))
    return tuple(checks)
