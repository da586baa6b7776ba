"""When the guard fails and when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.bench.guard import losses, read_baseline, write_baseline
from forebay.bench.intervals import Ratio, ratio_of
from forebay.errors import ConfigurationError


def ratio(low: float, median: float, high: float) -> Ratio:
    return Ratio(median, low, high, 7)


def test_it_fails_where_even_the_kindest_reading_is_a_loss() -> None:
    """The interval's upper end against 0.8 of the baseline: a low median alone does not fail a noisy machine."""
    baseline = {"whole": 0.5}
    assert losses({"whole": ratio(0.1, 0.2, 0.41)}, baseline) == []
    (sentence,) = losses({"whole": ratio(0.3, 0.35, 0.39)}, baseline)
    assert "whole: 0.350 (0.300 to 0.390)" in sentence
    assert "0.500" in sentence
    assert losses({"whole": ratio(0.6, 0.7, 0.8)}, baseline) == []


def test_one_slow_round_of_seven_does_not_fail() -> None:
    """Nor does one fast round save a front end that has become slower in all the others: the range decides."""
    before = {"whole": 0.5}
    one_slow = ratio_of([5.0, 5, 5, 5, 5, 5, 1], [10.0] * 7)
    all_slow = ratio_of([3.0, 3.2, 3.4, 3.5, 3.1, 3.9, 3.3], [10.0] * 7)
    assert losses({"whole": one_slow}, before) == []
    assert len(losses({"whole": all_slow}, before)) == 1


def test_a_job_that_is_no_longer_measured_is_a_loss() -> None:
    """A guard cannot be silenced by leaving out what it guards."""
    assert losses({}, {"coalesced": 1.0}) == ["coalesced is in the baseline and was not measured."]
    assert losses({"whole": ratio(0.1, 0.2, 0.3)}, {}) == ["whole is measured and not in the baseline."]


def test_a_baseline_is_read_as_it_was_written(tmp_path: Path) -> None:
    """With the environment that it was taken in; what is no baseline is refused with what to do."""
    path = tmp_path / "baseline.json"
    write_baseline(path, {"whole": ratio(0.4, 0.5, 0.6)}, {"cpu": "some"})
    assert read_baseline(path) == {"whole": 0.5}
    for content in ("", "{}", "[]", '{"ratios": {"whole": 1}}'):
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="--write"):
            read_baseline(path)
