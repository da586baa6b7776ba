"""Outcomes -> figures: the formulas, on numbers that can be checked by hand."""

from __future__ import annotations

import random
import statistics

import pytest

from forebay.bench.figures import figures, max_concurrent, percentile, tokens_by_time
from forebay.bench.intervals import median_interval, ratio_of
from forebay.bench.outcome import Outcome


def answer(start_s: float, ttft_s: float, gaps_s: list[float], tokens: int) -> Outcome:
    return Outcome(
        start_s, 0.0, ttft_s, ttft_s + sum(gaps_s), gaps_s, prompt_tokens=10, output_tokens=tokens, status=200
    )


def test_tpot_leaves_the_first_token_out() -> None:
    """(E2EL - TTFT) / (n - 1) with n of usage, however few frames carried the tokens."""
    coalesced = answer(0, 0.1, [0.4], tokens=5)
    assert coalesced.tpot_s == pytest.approx(0.1)
    assert answer(0, 0.1, [], tokens=1).tpot_s is None


def test_rates_are_of_whole_answers_over_the_duration() -> None:
    """A failed request is counted once, under its kind, and its time nowhere."""
    failed = Outcome(1.0, latency_s=30.0, status=503, failure="status")
    found = figures([answer(0, 0.1, [0.1] * 4, 5), answer(1, 0.3, [0.1] * 2, 3), failed], duration_s=2.0)
    assert (found["completed"], found["failed"], found["error_counts"]) == (2, 1, {"status_503": 1})
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (20, 8)
    assert (found["request_throughput"], found["output_throughput"], found["total_token_throughput"]) == (1, 4, 14)
    assert found["mean_ttft_ms"] == pytest.approx(200)
    assert found["std_ttft_ms"] == pytest.approx(100)
    assert found["median_itl_ms"] == pytest.approx(100)
    assert found["p99_e2el_ms"] == pytest.approx(500)


def test_goodput_wants_every_objective_met() -> None:
    """An answer that is fast to begin and slow to go on does not count."""
    slow_start, slow_rest = answer(0, 0.5, [0.01] * 4, 5), answer(0, 0.05, [0.2] * 4, 5)
    good = answer(0, 0.05, [0.01] * 4, 5)
    outcomes = [slow_start, slow_rest, good, good]
    assert figures(outcomes, 1.0)["request_goodput"] is None
    assert figures(outcomes, 1.0, slos_ms={"ttft": 100})["request_goodput"] == 3
    assert figures(outcomes, 1.0, slos_ms={"ttft": 100, "tpot": 50})["request_goodput"] == 2
    assert figures(outcomes, 0.5, slos_ms={"e2el": 91})["request_goodput"] == 4


def test_what_was_not_measured_meets_no_objective() -> None:
    """No TTFT of a whole answer, no TPOT without usage; an answer of one token has no TPOT that could be too long."""
    whole = Outcome(0, latency_s=0.1, output_tokens=5, status=200)
    without_usage = answer(0, 0.05, [0.01] * 4, 5)
    without_usage.output_tokens = None
    short = answer(0, 0.05, [], 1)
    for outcome, met in ((whole, 0), (without_usage, 0), (short, 1)):
        assert figures([outcome], 1.0, slos_ms={"ttft": 100, "tpot": 50})["request_goodput"] == met


def test_no_answer_at_all_is_zeros() -> None:
    """A server that only refuses has figures too."""
    found = figures([Outcome(status=503, failure="status")], 1.0, slos_ms={"ttft": 1})
    assert (found["completed"], found["request_goodput"], found["p99_ttft_ms"]) == (0, 0, 0)
    assert found["max_output_tokens_per_s"] == 0


def test_percentiles_are_linear_between_neighbours() -> None:
    """As numpy's default; the ends are the smallest and largest value."""
    values = [1.0, 2.0, 4.0, 8.0]
    assert [percentile(values, at) for at in (0, 50, 75, 100)] == [1, 3, 5, 8]
    assert percentile(values, 50) == statistics.median(values)


def test_tokens_over_time_are_those_of_usage() -> None:
    """Five tokens in two frames: half of them when the first frame came, half when the second did."""
    assert tokens_by_time([answer(10, 0.5, [1.0], tokens=5)]) == [2.5, 2.5]
    assert sum(tokens_by_time([answer(0, 0.1, [0.1] * 9, 10)], 0.1)) == pytest.approx(10)


def test_requests_that_follow_each_other_are_not_at_once() -> None:
    """One that begins when another ends adds nothing to the most at once."""
    assert max_concurrent([answer(0, 0.5, [0.5], 2), answer(1, 0.5, [0.5], 2)]) == 1
    assert max_concurrent([answer(0, 0.5, [0.5], 2), answer(0.9, 0.5, [0.5], 2)]) == 2


def test_the_interval_is_that_of_the_sign_test() -> None:
    """Of 7 values the range (98%); from 9 on the second smallest and largest, from 12 on the third: known tables."""
    for num, drop in ((7, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5)):
        assert median_interval(range(num)) == (drop, num - 1 - drop)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Of skewed values drawn 2,000 times, the true median lies in at least 95% of the intervals."""
    rng = random.Random(1)
    held = 0
    for _ in range(2000):
        low, high = median_interval([rng.lognormvariate(0, 1) for _ in range(9)])
        held += low <= 1 <= high
    assert held >= 1900


def test_too_few_pairs_have_no_ratio() -> None:
    """Six say too little to be published; a value of zero has no ratio."""
    assert ratio_of([2.0] * 7, [1.0] * 7).low == 2
    with pytest.raises(ValueError, match="7 pairs"):
        ratio_of([1.0] * 6, [1.0] * 6)
    with pytest.raises(ValueError, match="not positive"):
        ratio_of([1.0] * 7, [0.0] * 7)
