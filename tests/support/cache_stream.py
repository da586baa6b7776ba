"""A stream of questions for the semantic tier, and the tier at work on it: exact tier, search, `Assurance`, judge.

Questions arrive by Zipf's law over a popularity that drifts: more and more of them are asked, ranks move, stored
answers expire. Labels come from the shadow mechanism alone.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from forebay.cache.aims import Aims
from forebay.cache.assurance import Assurance
from forebay.cache.labels import Ruling
from forebay.cache.standing import Standing
from support.cache_world import World

Score = Callable[[int, int], float]
"""Calibrated chance that two texts, by number, have the same answer."""

NUM_REQUESTS = 20_000
WARM_UP = 5_000
EXPIRY = 5_000
"""Requests until a stored answer is forgotten."""
SHADOW_DELAY = 20
"""Requests until a hit that is regenerated has its label."""
NUM_NEAREST = 4

_EPOCH = 1000
_FIRST_ASKED = 0.4
_MOVED = 0.1
_GOLDEN = 0.6180339887


@dataclass(frozen=True, slots=True)
class Judge:
    """Says whether two answers are the same, and errs: equal ones seem different, different ones equal."""

    false_alarm: float = 0.0
    miss: float = 0.0

    def says_same(self, rng: random.Random, is_same: bool) -> bool:
        return rng.random() >= self.false_alarm if is_same else rng.random() < self.miss


@dataclass(frozen=True, slots=True)
class Break:
    """From a request on, such a share of the pairs that say the same has different answers all the same."""

    at: int
    share: float


HONEST, UNBROKEN = Judge(), Break(NUM_REQUESTS, 0.0)


@dataclass(slots=True)
class Outcome:
    """Counts of a run. A repeat is a request for what is stored in other words; `late`: after the warm-up."""

    hits: int = 0
    wrong: int = 0
    exact: int = 0
    observed: int = 0
    regenerated: int = 0
    late_repeats: int = 0
    late_served: int = 0
    began_at: int | None = None
    standing: Standing | None = None

    @property
    def error_rate(self) -> float:
        return self.wrong / self.hits if self.hits else 0.0

    @property
    def coverage(self) -> float:
        """Share of the true repeats that is served, rightly."""
        return self.late_served / self.late_repeats if self.late_repeats else 0.0


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
        share_asked = _FIRST_ASKED + (1 - _FIRST_ASKED) * epoch / max(1, num_epochs - 1)
        for _ in range(int(_MOVED * len(ranks))):
            one, other = rng.randrange(len(ranks)), rng.randrange(len(ranks))
            ranks[one], ranks[other] = ranks[other], ranks[one]
        # Newcomers belong to all families, so questions that are asked often get rivals.
        asked = [question for question in ranks if question * _GOLDEN % 1 < share_asked]
        weights = [1 / (rank + 1) for rank in range(len(asked))]
        for question in rng.choices(asked, weights, k=number // num_epochs):
            of_one = texts[question]
            yield of_one[int(len(of_one) * rng.random() ** 1.5)]  # some wordings are more common


def run(
    world: World,
    score: Score,
    aims: Aims,
    seed: int,
    *,
    number: int = NUM_REQUESTS,
    warm_up: int = WARM_UP,
    judge: Judge = HONEST,
    broken: Break = UNBROKEN,
) -> Outcome:
    """`number` requests of the stream of that seed."""
    tier = _Tier(world, score, Assurance(aims, "stream", random.Random(f"draw {seed}")), judge, broken, seed)
    for at, text in enumerate(requests(world, seed, number)):
        tier.ask(at, text, late=at >= warm_up)
    tier.outcome.standing = tier.assurance.standing()
    return tier.outcome


class _Tier:
    """Answers are known by their question; times are numbers of requests."""

    def __init__(
        self, world: World, score: Score, assurance: Assurance, judge: Judge, broken: Break, seed: int
    ) -> None:
        self.outcome = Outcome()
        self.assurance = assurance
        self._world = world
        self._score = score
        self._judge = judge
        self._broken = broken
        self._rng = random.Random(f"judge {seed}")
        self._stored_until = [-1] * len(world.texts)
        self._known_until = [-1] * world.num_questions
        self._shadow: deque[tuple[int, Ruling, int, int]] = deque()

    def ask(self, at: int, text: int, *, late: bool) -> None:
        while self._shadow and self._shadow[0][0] <= at:
            _, ruling, asked, given = self._shadow.popleft()
            self._learn(at, ruling, asked, given)
            self._store(at, asked)
        if self._stored_until[text] > at:
            self.outcome.exact += 1
            return
        self.outcome.late_repeats += late and self._known_until[self._world.questions[text]] > at
        entry, score = self._best(at, text)
        if entry is None:
            self._store(at, text)
            return
        ruling = self.assurance.decide(score)
        if ruling.action == "serve":
            self._serve(at, text, entry, ruling, late)
            return
        self.outcome.observed += ruling.action == "observe"
        if ruling.labelled:
            self._learn(at, ruling, text, entry)
        self._store(at, text)

    def _serve(self, at: int, text: int, entry: int, ruling: Ruling, late: bool) -> None:
        is_right = self._is_same(at, text, entry)
        self.outcome.hits += 1
        self.outcome.wrong += not is_right
        self.outcome.late_served += late and is_right
        if self.outcome.began_at is None:
            self.outcome.began_at = at
        if ruling.labelled:
            self.outcome.regenerated += 1
            self._shadow.append((at + SHADOW_DELAY, ruling, text, entry))

    def _best(self, at: int, text: int) -> tuple[int | None, float]:
        """Of the nearest few that are stored, the one that scores best."""
        entry: int | None = None
        best, num_found = -1.0, 0
        for near in self._world.nearest[text]:
            if self._stored_until[near] > at:
                num_found += 1
                if (score := self._score(text, near)) > best:
                    best, entry = score, near
                if num_found == NUM_NEAREST:
                    break
        return entry, best

    def _store(self, at: int, text: int) -> None:
        self._stored_until[text] = self._known_until[self._world.questions[text]] = at + EXPIRY

    def _learn(self, at: int, ruling: Ruling, text: int, entry: int) -> None:
        self.assurance.learn(ruling, same=self._judge.says_same(self._rng, self._is_same(at, text, entry)))

    def _is_same(self, at: int, text: int, entry: int) -> bool:
        if self._world.questions[text] != self._world.questions[entry]:
            return False
        broken = at >= self._broken.at and (text * 7919 + entry * 104729) * _GOLDEN % 1 < self._broken.share
        return not broken
