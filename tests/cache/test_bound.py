"""The bound on an error rate: true at all times at once, whatever the errors do, and nearly as tight as can be."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from forebay.cache.bound import Evidence, clean_labels_needed

ALPHA = 0.05
NUM_STREAMS, NUM_LABELS = 100, 800
# Of 100 streams at most 11 may fail where 5% do: more with a chance of 1%.
MOST_FAILURES = 11

Chance = Callable[[int, list[bool]], float]


def constant(at: int, seen: list[bool]) -> float:
    return 0.05


def rising(at: int, seen: list[bool]) -> float:
    return 0.1 * at / NUM_LABELS


def jumping(at: int, seen: list[bool]) -> float:
    return 0.01 if at < NUM_LABELS // 2 else 0.2


def hiding(at: int, seen: list[bool]) -> float:
    """Errors stop for a while after each one, and come in bursts when the bound is low."""
    return 0.0 if any(seen[-20:]) else 0.15


def fails(chance: Chance, seed: int, *, weighted: bool) -> bool:
    """Whether the bound is ever below the mean chance of an error among the labels so far."""
    rng = random.Random(seed)
    evidence, seen, sum_of_chances = Evidence(), [False] * 20, 0.0
    for at in range(NUM_LABELS):
        # Chosen before the outcome, by what came before.
        weight = (0.1 if seen[-1] else rng.choice((0.3, 1.0))) if weighted else 1.0
        now = chance(at, seen)
        seen.append(rng.random() < now)
        evidence.add(weight, wrong=seen[-1])
        sum_of_chances += weight * now
        if evidence.excludes(sum_of_chances / evidence.mass, ALPHA):
            return True
    return False


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chance", [constant, rising, jumping, hiding])
def test_looked_at_after_every_label_it_fails_in_few_streams(chance: Chance, weighted: bool) -> None:
    """For errors at a constant chance, drifting, jumping, and hiding; with weights that depend on the past."""
    assert sum(fails(chance, seed, weighted=weighted) for seed in range(NUM_STREAMS)) <= MOST_FAILURES


def test_a_bound_for_one_sample_looked_at_all_the_time_would_fail() -> None:
    """What the test above tells apart: the textbook's 95% bound, good for one look, fails in far more streams."""

    def failed(seed: int) -> bool:
        rng, wrong = random.Random(seed), 0
        for at in range(1, NUM_LABELS + 1):
            wrong += rng.random() < 0.5
            if at >= 30 and wrong / at + 1.645 * math.sqrt(0.25 / at) < 0.5:
                return True
        return False

    assert sum(failed(seed) for seed in range(NUM_STREAMS)) > 2 * MOST_FAILURES


@pytest.mark.parametrize(("rate", "least"), [(0.05, 59), (0.01, 299), (0.005, 598)])
def test_clean_labels_that_prove_a_rate_are_few_more_than_the_least_possible(rate: float, least: int) -> None:
    """Fewer would be wrong: so many clean labels come by chance in one of twenty streams at that very rate."""
    assert least <= clean_labels_needed(rate, ALPHA) <= 1.3 * least


def test_it_tightens_with_labels_around_their_rate() -> None:
    """At 1% of errors: within 2% after 1000 labels, 1.3% after 20,000; never below the rate observed."""
    evidence = Evidence()
    bounds = {}
    for at in range(1, 20_001):
        evidence.add(1.0, wrong=at % 100 == 50)
        if at in {100, 1000, 20_000}:
            bounds[at] = evidence.upper(ALPHA)
            assert bounds[at] > evidence.rate
    assert bounds[100] > bounds[1000] > bounds[20_000]
    assert bounds[1000] < 0.025
    assert bounds[20_000] < 0.013


def test_without_labels_anything_is_possible() -> None:
    """The bound is 1, also while there are too few."""
    evidence = Evidence()
    assert evidence.upper(ALPHA) == 1.0
    evidence.add(1.0, wrong=False)
    assert evidence.upper(ALPHA) == 1.0


def test_merged_evidence_says_what_all_labels_together_say() -> None:
    """Two servers' labels count as those of one."""
    rng = random.Random(1)
    parts, whole = (Evidence(), Evidence()), Evidence()
    for _ in range(500):
        part, weight, wrong = rng.choice(parts), rng.uniform(0.1, 1), rng.random() < 0.1
        part.add(weight, wrong=wrong)
        whole.add(weight, wrong=wrong)
    parts[0].merge(parts[1])
    assert parts[0].upper(ALPHA) == pytest.approx(whole.upper(ALPHA), rel=1e-4)
    assert parts[0].rate == pytest.approx(whole.rate)


def test_it_is_kept_as_json() -> None:
    """Exported and restored it says the same."""
    evidence = Evidence()
    for at in range(300):
        evidence.add(0.5 + 0.5 * (at % 2), wrong=at % 30 == 7)
    restored = Evidence.restore(json.loads(json.dumps(evidence.export())))
    assert restored.upper(ALPHA) == evidence.upper(ALPHA)
    assert restored.rate == evidence.rate


@pytest.mark.parametrize(
    "damage",
    [
        {"mass": -1.0},
        {"wrong_mass": 11.0},
        {"losses": [0.0]},
        {"losses": [1.0] * 10},
        {"mass": math.nan},
        {"mass": "x"},
    ],
)
def test_what_no_labels_could_say_is_refused(damage: dict[str, object]) -> None:
    """A damaged file proves nothing good."""
    evidence = Evidence()
    evidence.mass = 10.0
    with pytest.raises(ValueError, match="not the"):
        Evidence.restore(evidence.export() | damage)
