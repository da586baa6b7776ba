"""Whether the model may be asked at all: it answers the check set first, in the background."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

from forebay.cache.verification.asking import Asking, Word
from forebay.cache.verification.check_set import Check
from forebay.cache.verification.grading import Counts, Grade, can_pass
from forebay.ledger.own import OWN
from forebay.values import value

ASK_S = 10.0
"""What one question of the check set may take, the wait for an idle engine not counted."""

NUM_TIMED = 4
"""Questions after which it is looked how long they take."""

MOST_ASKING_S = 240.0
"""What all of them together may take."""

MOST_FAILED = 3
"""Questions that came to nothing, one after another, after which the model is left alone."""

SEED = 7

Result = Literal["passed", "failed", "slow", "unavailable"]
"""`failed`: its word is worth too little, or it has none; `slow`: it takes too long to be asked; `unavailable`: the
engine did not answer."""


@value
class Checked:
    """`ask_s`: seconds that a question took in the mean."""

    result: Result
    grade: Grade
    ask_s: float


async def check(asking: Asking, checks: Sequence[Check], most_ask_s: float) -> Checked:
    """Asks one after another, in an order by chance that is always the same, until the model has passed or cannot pass
    any more. `most_ask_s`: what a question may take later, in seconds."""
    left = deque(random.Random(SEED).sample(checks, len(checks)))
    scores: dict[bool, list[float]] = {True: [], False: []}
    times: list[float] = []
    num_failed = 0
    result: Result = "passed"
    while left and result == "passed":
        found = await asking.ask(left[0].prompt, OWN.tenant, ASK_S, wait_s=None)
        if isinstance(found, Word):
            scores[left.popleft().same].append(found.score)
            times.append(found.seconds)
            num_failed = 0
            result = _result(scores, times, len(checks) // 2, most_ask_s)
        elif (num_failed := num_failed + 1) == MOST_FAILED:
            result = "failed" if found == "astray" else found
    grade = Grade(Counts.of(scores[True]), Counts.of(scores[False]))
    return Checked(result, grade, sum(times) / max(1, len(times)))


def _result(
    scores: Mapping[bool, Sequence[float]], times: Sequence[float], num_pairs: int, most_ask_s: float
) -> Result:
    """So far."""
    if not can_pass(Counts.of(scores[True]), Counts.of(scores[False]), num_pairs):
        return "failed"
    if (len(times) == NUM_TIMED and sorted(times)[NUM_TIMED // 2] > most_ask_s) or sum(times) > MOST_ASKING_S:
        return "slow"
    return "passed"
