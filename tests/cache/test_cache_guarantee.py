"""The set error rate holds on a generated stream, with the shipped decision and labels from the shadow alone.

The short version: a part of the questions, fewer requests, two seeds. All of it: `benchmarks/cache_guarantee.py`.
"""

from __future__ import annotations

import pytest

from forebay.cache.aims import Aims
from support.cache_scores import scored
from support.cache_stream import Break, Judge, Score, run
from support.cache_world import World, read_world

NUM_REQUESTS, WARM_UP = 7_000, 3_000
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def stream() -> tuple[World, Score]:
    return scored(read_world(every=4))


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_errors_among_hits_stay_below_the_rate_and_repeats_are_served(stream: tuple[World, Score], rate: float) -> None:
    """In both runs; at least 30% of what was asked before in other words comes from the cache."""
    for seed in SEEDS:
        outcome = run(*stream, Aims(rate), seed, number=NUM_REQUESTS, warm_up=WARM_UP)
        assert outcome.hits > 500
        assert outcome.error_rate <= rate
        assert outcome.coverage >= 0.3
        assert outcome.regenerated <= 0.08 * outcome.hits


def test_a_strict_rate_is_not_broken_for_want_of_labels(stream: tuple[World, Score]) -> None:
    """At 0.5% this stream is too short to prove it: nothing is served, or next to nothing is wrong."""
    for seed in SEEDS:
        assert run(*stream, Aims(0.005), seed, number=NUM_REQUESTS).error_rate <= 0.005


def test_a_judge_that_errs_makes_the_tier_more_careful(stream: tuple[World, Score]) -> None:
    """5% of its verdicts are wrong: at 2% nothing is served, as its own errors look like wrong hits."""
    outcome = run(*stream, Aims(0.02), 0, number=NUM_REQUESTS, judge=Judge(0.05, 0.05))
    assert outcome.hits == 0
    assert outcome.standing is not None
    assert outcome.standing.why == "errors too many"


def test_answers_that_come_to_differ_end_serving(stream: tuple[World, Score]) -> None:
    """From the middle on one pair in four is wrong, which no text shows: soon little or nothing is served."""
    broken = Break(NUM_REQUESTS // 2, 0.25)
    outcome = run(*stream, Aims(0.05), 0, number=NUM_REQUESTS, broken=broken)
    unbroken = run(*stream, Aims(0.05), 0, number=NUM_REQUESTS)
    assert outcome.hits < 0.8 * unbroken.hits
    assert outcome.standing is not None
    assert not outcome.standing.serving
