"""From two messages to a probability with a lower bound."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files

import pytest

from forebay.cache.calibration import Calibration, load_calibration, parse_calibration
from forebay.cache.decision import decide
from forebay.cache.explain import explain
from forebay.cache.features import NAMES
from forebay.errors import ConfigurationError

EMBEDDER = "all-MiniLM-L6-v2/int8"


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return load_calibration(EMBEDDER)


@pytest.mark.parametrize(
    ("stored", "cosine"),
    [
        ("hello, how do I rotate a backup key?", 1.0),
        ("How can I rotate a backup key?", 0.99),
        ("How do I rotate a bakcup key?", 0.99),
        ("What's the best way to rotate a backup key?", 0.97),
    ],
)
def test_a_plain_repeat_is_served_at_one_percent(calibration: Calibration, stored: str, cosine: float):
    """Manners, slips and frames of the same question."""
    verdict = decide("How do I rotate a backup key?", stored, cosine, calibration)
    assert verdict.refusal is None
    assert verdict.may_serve(0.01)


@pytest.mark.parametrize(
    "stored",
    ["How do I rotate a signing key?", "How do I rotate a backup tape?", "How do I print a backup key on paper?"],
)
def test_a_replaced_or_added_word_is_not_served_at_one_percent(calibration: Calibration, stored: str):
    """Even at a cosine that paraphrases rarely reach."""
    verdict = decide("How do I rotate a backup key?", stored, 0.96, calibration)
    assert verdict.refusal is None
    assert not verdict.may_serve(0.01)


def test_a_refused_pair_is_never_served(calibration: Calibration):
    """A guard outweighs any score and any rate short of one."""
    verdict = decide("Delete key 17", "Delete key 71", 1.0, calibration)
    assert verdict.refusal is not None
    assert verdict.refusal.guard == "quantities"
    assert not verdict.may_serve(0.99)


def test_the_bound_stays_below_the_estimate_and_follows_the_cosine(calibration: Calibration):
    """The better the cosine, the higher both."""
    bounds = []
    for cosine in (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99):
        probability = decide("Where may I fly a drone?", "Where can I fly my drone?", cosine, calibration).probability
        assert 0.0 <= probability.lower <= probability.estimate <= 1.0
        bounds.append(probability.lower)
    assert bounds == sorted(bounds)
    assert bounds[0] < bounds[-1]


def test_the_verdict_does_not_depend_on_which_was_stored(calibration: Calibration):
    """Symmetric to the last bit."""
    first, second = "How long do pancakes keep?", "For how long can I keep cooked pancakes?"
    assert decide(first, second, 0.9, calibration) == decide(second, first, 0.9, calibration)


def test_explain_shows_matches_leftovers_and_contributions(calibration: Calibration):
    """What was matched how, what stands alone, and what each feature adds; refused pairs are explained, too."""
    told = explain("How do I fix a slow tap?", "How can I repair a dripping tap today?", 0.8, calibration)
    assert ("synonym", "fix", "repair") in told.matches
    assert ("same", "tap", "tap") in told.matches
    assert (told.only_first, told.only_second) == (("slow",), ("dripping", "today"))
    assert set(told.contributions) == set(NAMES)
    assert told.volatile is not None
    assert told.volatile.words == "today"
    assert told.verdict.refusal is not None


def test_a_calibration_of_other_features_is_refused():
    """One that was fitted before a feature changed must be fitted again, not misread."""
    text = files("forebay.cache").joinpath("data", "calibration-all-minilm-l6-v2-int8.json").read_text()
    fields = json.loads(text)
    assert parse_calibration(text) == load_calibration(EMBEDDER)
    fields["features"] = fields["features"][::-1]
    with pytest.raises(ConfigurationError, match="fit it again"):
        parse_calibration(json.dumps(fields))
    with pytest.raises(ConfigurationError, match="No calibration"):
        load_calibration("another-model")


def test_less_certain_weights_lower_the_bound(calibration: Calibration):
    """The spread of the weights counts: with five times as much of it the bound is lower, the estimate the same."""
    wider = replace(calibration, z=5 * calibration.z)
    pair = ("Where may I fly a drone?", "Where can I fly my drone?", 0.93)
    ours, theirs = decide(*pair, calibration).probability, decide(*pair, wider).probability
    assert theirs.lower < ours.lower
