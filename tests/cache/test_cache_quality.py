"""The shipped decision on public and own pairs: the figures of docs/cache-decision.md, with margins."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

import pytest

from forebay.cache.calibration import load_calibration
from forebay.embedding.auto import load_embedder
from forebay.embedding.base import Embedder

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from cache_pairs.conversations import conversation_figures  # noqa: E402 - after the path
from cache_pairs.fitting import Pairs, fingerprint, fit, measured, read_pairs, served  # noqa: E402 - after the path

PAIRS = ROOT / "benchmarks" / "cache_pairs"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


@cache
def measured_once(name: str, embedder: Embedder) -> Pairs:
    return measured(read_pairs(PAIRS / name), embedder)


@pytest.mark.parametrize(
    ("name", "rate", "least_served", "most_wrong"),
    [
        ("fow.jsonl", 0.01, 0.35, 1),
        ("fow.jsonl", 0.05, 0.38, 1),
        ("held.txt", 0.01, 0.50, 0),
        ("blind.txt", 0.01, 0.50, 0),
        ("blind.txt", 0.05, 0.55, 1),
    ],
)
def test_repeats_are_served_and_traps_are_not(
    embedder: Embedder, name: str, rate: float, least_served: float, most_wrong: int
):
    """Pairs that the shipped model was not fitted on: the share of repeats served, the traps answered."""
    pairs = measured_once(name, embedder)
    hits = served(load_calibration(embedder.name), pairs) >= 1 - rate
    assert hits[pairs.y].mean() >= least_served
    assert hits[~pairs.y].sum() <= most_wrong


def test_the_shipped_model_is_the_one_that_the_pairs_give(embedder: Embedder):
    """Nobody edited the pairs or the lexicon without generating and fitting again."""
    data = ROOT / "server" / "forebay" / "cache" / "data"
    shipped = json.loads((data / "calibration-all-minilm-l6-v2-int8.json").read_text())
    assert shipped["fitted_on"] == fingerprint(PAIRS, data)
    assert shipped["embedder"] == embedder.name


def test_a_trap_of_our_own_is_answered_one_time_in_five_hundred_at_most(embedder: Embedder):
    """At a rate of 1%, one in twenty of the pairs it was fitted on; docs/cache-calibration.md has the held-out ones."""
    own = measured(read_pairs(PAIRS / "pairs.jsonl")[::20], embedder)
    hits = served(load_calibration(embedder.name), own) >= 0.99
    assert hits[~own.y].mean() <= 0.002
    assert hits[own.y].mean() >= 0.6


def test_earlier_turns_tell_conversations_apart(embedder: Embedder):
    """On the last message alone nearly every pair on two topics would be answered wrongly; inside its scope none is,
    and those on one topic are served all the same."""
    found = conversation_figures(embedder, load_calibration(embedder.name))
    assert found["traps_answered_on_the_last_message_alone"] >= 0.8 * found["traps"]
    assert found["traps_answered_inside_their_scope"] == 0
    assert found["repeats_answered_inside_their_scope"] >= 0.8 * found["repeats"]


@pytest.mark.prove
def test_fitting_again_gives_the_shipped_weights(embedder: Embedder):
    """The whole fit, of which the report in docs/ tells."""
    fitted = fit(measured(read_pairs(PAIRS / "pairs.jsonl"), embedder), embedder.name)
    shipped = load_calibration(embedder.name)
    assert shipped.weights == pytest.approx(fitted.weights, abs=0.02)
    assert shipped.means == pytest.approx(fitted.means, abs=0.01)
