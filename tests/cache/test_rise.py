"""Rises of an error rate: told soon, and seldom where there is none."""

from __future__ import annotations

import random
import statistics

from forebay.cache.drift import NearMisses, RiseDetector, hit_detector


def labels_until_alarm(detector: RiseDetector, rate: float, allowed: float, seed: int, most: int) -> int:
    rng = random.Random(seed)
    for at in range(most):
        if detector.alarmed:
            return at
        detector.add(1.0, allowed, wrong=rng.random() < rate)
    return most


def test_a_rate_that_is_allowed_alarms_seldom() -> None:
    """At the very rate that is allowed an alarm comes after 100 labels on average at the earliest, as proven; at a
    third of it after more than 5000.
    """
    assert statistics.mean(labels_until_alarm(hit_detector(), 0.05, 0.05, seed, 5000) for seed in range(40)) >= 100
    assert statistics.median(labels_until_alarm(hit_detector(), 0.0167, 0.05, seed, 5000) for seed in range(20)) == 5000


def test_a_rise_is_told_within_a_few_errors() -> None:
    """After any time of quiet, at six times what is allowed, within about eight errors."""
    detector = hit_detector()
    for _ in range(10_000):
        detector.add(1.0, 0.02, wrong=False)
    taken = []
    for seed in range(30):
        detector.level = 0.0
        taken.append(labels_until_alarm(detector, 0.12, 0.02, seed, 1000))
    assert statistics.median(taken) <= 8 / 0.12
    assert max(taken) < 1000


def test_one_wrong_label_is_reason_to_look_closer_and_clean_ones_calm_it() -> None:
    """Suspicion comes before the alarm and goes by itself."""
    detector = hit_detector()
    detector.add(1.0, 0.01, wrong=True)
    assert detector.suspicious
    assert not detector.alarmed
    for _ in range(60):
        detector.add(1.0, 0.01, wrong=False)
    assert not detector.suspicious


def near_misses_until_alarm(usual: float, later: float, seed: int, most: int) -> int:
    rng = random.Random(seed)
    near = NearMisses(2)
    for _ in range(300):
        near.add(1, wrong=rng.random() < usual, watched=False)
    for at in range(most):
        near.add(1, wrong=rng.random() < later, watched=True)
        if near.detector.alarmed:
            return at
    return most


def test_near_misses_that_are_wrong_more_often_than_before_warn() -> None:
    """From 10% to 40%: after a hundred; the same as before: not within 2000, in nearly all streams."""
    assert max(near_misses_until_alarm(0.1, 0.4, seed, 2000) for seed in range(20)) <= 150
    assert sum(near_misses_until_alarm(0.1, 0.1, seed, 2000) < 2000 for seed in range(20)) <= 2
