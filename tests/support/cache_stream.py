"""A tier at work on a generated stream: an exact tier, a search by meaning, an `Assurance`, a judge.

Questions arrive by Zipf's law over a popularity that drifts: questions are asked from some time on that were not
before, ranks move, answers expire. Labels come from the shadow alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.labels import Ruling
from forebay.cache.standing import Standing
from support.cache_world import World

Score = Callable[[int, int], float]
"""Calibrated chance that two texts, by number, have the same answer."""

NUM_NEAREST = 4
_NEIGHBOURS = 64
_ZIPF = 1.0
_EPOCH = 1000
_FIRST_ASKED = 0.4
_MOVED = 0.1
EXPIRY = 5000
SHADOW_DELAY = 20


@dataclass(frozen=True, slots=True)
class Judge:
    """Says whether two answers are the same, and errs: an equal one seems different, a different one equal."""

    false_alarm: float = 0.0
    miss: float = 0.0

    def says_same(self, rng: random.Random, is_same: bool) -> bool:
        return rng.random() >= self.false_alarm if is_same else rng.random() < self.miss


@dataclass(slots=True)
class Outcome:
    """Counts of a run; `late` ones after the warm-up."""

    hits: int = 0
    wrong: int = 0
    exact: int = 0
    repeats_late: int = 0
    served_late: int = 0
    shadow: int = 0
    began_at: int | None = None
    observing: int = 0
    standing: Standing | None = None
    worst: float = 0.0
    """Highest share of wrong hits at any time after the first hundred hits."""

    @property
    def error_rate(self) -> float:
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def coverage(self) -> float:
        """Served of the true repeats that are not the same text again."""
        return self.served_late / self.repeats_late if self.repeats_late else 0.0


class Neighbours:
    """The texts that lie nearest to each text, nearest first."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        near = []
        for start in range(0, len(vectors), 256):
            cosines = vectors[start : start + 256] @ vectors.T
            nearest = np.argpartition(-cosines, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
            order = np.argsort(-np.take_along_axis(cosines, nearest, 1), axis=1)
            near.append(np.take_along_axis(nearest, order, 1))
        self.of: list[list[int]] = np.concatenate(near).tolist()


def requests(world: World, seed: int, number: int) -> Iterator[int]:
    """The texts asked, by number."""
    rng = random.Random(f"stream {seed}")
    texts: list[list[int]] = [[] for _ in world.families]
    for text, question in enumerate(world.questions):
        texts[question].append(text)
    for of_one in texts:
        rng.shuffle(of_one)
    ranks = list(range(world.num_questions))
    rng.shuffle(ranks)
    num_epochs = max(1, number // _EPOCH)
    for epoch in range(num_epochs):
        part = _FIRST_ASKED + (1 - _FIRST_ASKED) * epoch / max(1, num_epochs - 1)
        for _ in range(int(_MOVED * len(ranks))):
            one, other = rng.randrange(len(ranks)), rng.randrange(len(ranks))
            ranks[one], ranks[other] = ranks[other], ranks[one]
        # Who is asked from now on: questions join by number, so the popular ones get rivals of their own families.
        asked = [question for question in ranks if (question * 0.6180339887) % 1 < part]
        weights = [1 / (rank + 1) ** _ZIPF for rank in range(len(asked))]
        for question in rng.choices(asked, weights, k=number // num_epochs):
            # Some wordings of a question are more common than others.
            of_one = texts[question]
            yield of_one[int(len(of_one) * rng.random() ** 1.5)]


def run(
    world: World,
    neighbours: Neighbours,
    score: Score,
    aims: Aims,
    seed: int,
    number: int = 20_000,
    warm_up: int = 5_000,
    judge: Judge = Judge(),
) -> Outcome:
    """`number` requests of the stream of that seed."""
    tier = _Tier(world, neighbours, score, Assurance(aims, "stream", random.Random(f"draw {seed}")), judge, seed)
    for at, text in enumerate(requests(world, seed, number)):
        tier.ask(at, text, late=at >= warm_up)
    tier.outcome.standing = tier.assurance.standing()
    return tier.outcome


class _Tier:
    def __init__(
        self, world: World, neighbours: Neighbours, score: Score, assurance: Assurance, judge: Judge, seed: int
    ) -> None:
        self.outcome = Outcome()
        self.assurance = assurance
        self._questions = world.questions
        self._near = neighbours.of
        self._score = score
        self._judge = judge
        self._rng = random.Random(f"judge {seed}")
        self._exact_until = [-1] * len(world.texts)
        self._found_until = [-1] * len(world.texts)
        self._answered_until = [-1] * world.num_questions
        self._pending: list[tuple[int, Ruling, int, int]] = []

    def ask(self, at: int, text: int, *, late: bool) -> None:
        while self._pending and self._pending[0][0] <= at:
            _, ruling, asked, entry = self._pending.pop(0)
            self._learn(ruling, asked, entry)
            self._store(at, asked, indexed=True)
        if self._exact_until[text] > at:
            self.outcome.exact += 1
            return
        question = self._questions[text]
        repeat = self._answered_until[question] > at
        self.outcome.repeats_late += late and repeat
        entry, best = self._best(at, text)
        if entry is None:
            self._store(at, text, indexed=True)
            return
        ruling = self.assurance.decide(best)
        if ruling.action == "serve":
            self._serve(at, text, entry, ruling, late)
            return
        self.outcome.observing += ruling.action == "observe"
        if ruling.labelled:
            self._learn(ruling, text, entry)
        self._store(at, text, indexed=ruling.indexed)

    def _serve(self, at: int, text: int, entry: int, ruling: Ruling, late: bool) -> None:
        outcome = self.outcome
        right = self._questions[text] == self._questions[entry]
        outcome.hits += 1
        outcome.wrong += not right
        outcome.served_late += late and right
        if outcome.hits > 100:
            outcome.worst = max(outcome.worst, outcome.error_rate)
        if outcome.began_at is None:
            outcome.began_at = at
        if ruling.labelled:
            outcome.shadow += 1
            self._pending.append((at + SHADOW_DELAY, ruling, text, entry))

    def _best(self, at: int, text: int) -> tuple[int | None, float]:
        """Of the nearest few that are stored, the one that scores best."""
        best, entry, found = -1.0, None, 0
        for near in self._near[text]:
            if self._found_until[near] > at:
                found += 1
                if (scored := self._score(text, near)) > best:
                    best, entry = scored, near
                if found == NUM_NEAREST:
                    break
        return entry, best

    def _store(self, at: int, text: int, *, indexed: bool) -> None:
        self._exact_until[text] = at + EXPIRY
        if indexed:
            self._found_until[text] = self._answered_until[self._questions[text]] = at + EXPIRY

    def _learn(self, ruling: Ruling, text: int, entry: int) -> None:
        is_same = self._questions[text] == self._questions[entry]
        self.assurance.learn(ruling, same=self._judge.says_same(self._rng, is_same))


def summary(outcomes: Sequence[Outcome], rate: float) -> dict[str, Any]:
    """What the runs at one rate came to."""
    coverages = sorted(outcome.coverage for outcome in outcomes)
    return {
        "runs": len(outcomes),
        "exceeded": sum(outcome.error_rate > rate for outcome in outcomes),
        "error_rate_mean": float(np.mean([outcome.error_rate for outcome in outcomes])),
        "error_rate_max": max(outcome.error_rate for outcome in outcomes),
        "worst_at_any_time": max(outcome.worst for outcome in outcomes),
        "served_30_percent": sum(coverage >= 0.3 for coverage in coverages),
        "coverage": [coverages[0], float(np.median(coverages)), coverages[-1]],
        "hits_mean": float(np.mean([outcome.hits for outcome in outcomes])),
        "shadow_share": sum(outcome.shadow for outcome in outcomes) / max(1, sum(outcome.hits for outcome in outcomes)),
        "began_at": sorted(Counter(outcome.began_at for outcome in outcomes).items(), key=lambda item: item[0] or 0),
    }
