"""`bench cache`: what is asked again and again, and what it says of a server's cache."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from forebay.bench.cache_replay import Replay, replay_figures
from forebay.bench.outcome import Outcome
from forebay.errors import ConfigurationError
from support.cached import OWNER, cached_server
from support.command import forebay

SCRIPT = {"metadata": {"forebay_script": "As it says in the manual."}}


def test_questions_come_again_as_they_were_ordered() -> None:
    """By Zipf's law, some in other words; the same for the same seed."""
    texts = Replay(3000, 50, 1.0, 0.5, seed=1).texts()
    assert texts == Replay(3000, 50, 1.0, 0.5, seed=1).texts()
    assert texts != Replay(3000, 50, 1.0, 0.5, seed=2).texts()
    kinds = Counter(kind for _, kind in texts)
    assert kinds["new"] <= 50
    assert 50 < kinds["reworded"] < kinds["repeated"]
    seen = set()
    for text, kind in texts:
        assert (text in seen) == (kind == "repeated")
        seen.add(text)
    assert Counter(kind for _, kind in Replay(500, 20, reworded=0.0).texts())["reworded"] == 0


@pytest.mark.parametrize("options", [{"num_questions": 0}, {"num_questions": 10**6}, {"reworded": 1.5}])
def test_what_cannot_be_asked_is_refused(options: dict[str, float]) -> None:
    """In a sentence that names the flag."""
    with pytest.raises(ConfigurationError, match=r"--(num-questions|reworded)"):
        Replay(**options)  # type: ignore[arg-type]


def test_figures_tell_savings_from_errors() -> None:
    """What is new and yet a hit was answered with another question's answer; failures are in no rate."""
    outcomes = [
        Outcome(cache="miss", latency_s=1.0, prompt_tokens=5, output_tokens=10, status=200),
        Outcome(cache="hit", latency_s=0.1, prompt_tokens=5, output_tokens=10, status=200),
        Outcome(cache="coalesced", latency_s=0.5, prompt_tokens=6, output_tokens=11, status=200),
        Outcome(cache="hit", latency_s=0.2, prompt_tokens=7, output_tokens=12, status=200),
        Outcome(failure="reset"),
    ]
    found = replay_figures(["new", "repeated", "reworded", "new", "repeated"], outcomes, 2.0)
    assert (found["completed"], found["failed"], found["hit_rate"]) == (4, 1, 0.75)
    assert (found["repeated_hit_rate"], found["reworded_hit_rate"], found["wrongly_answered"]) == (1.0, 1.0, 1)
    assert (found["prompt_tokens_saved"], found["completion_tokens_saved"]) == (18, 33)
    assert found["completion_tokens_generated"] == 10
    assert found["p50_e2el_hit_ms"] == pytest.approx(150)
    assert found["p50_e2el_miss_ms"] == pytest.approx(1000)


def test_the_command_measures_a_server(tmp_path: Path) -> None:
    """Of the exact tier: what is repeated hits, what is reworded or new does not; a second run finds nothing."""
    words = ["--num-requests", "150", "--num-questions", "20", "--api-key", OWNER, "--extra-body", json.dumps(SCRIPT)]
    with cached_server(tmp_path) as server:
        for _ in range(2):
            ran = forebay("bench", "cache", "--base-url", server.url, *words, "--json", data_dir=tmp_path / "none")
            assert ran.returncode == 0, ran.stderr
            found = json.loads(ran.stdout)["cache"]
            assert (found["completed"], found["failed"], found["wrongly_answered"]) == (150, 0, 0)
            assert found["repeated_hit_rate"] == 1.0
            assert found["reworded_hit_rate"] == 0.0
            assert found["p50_e2el_hit_ms"] > 0 < found["p50_ttft_miss_ms"]
        ran = forebay("bench", "cache", "--base-url", server.url, *words, data_dir=tmp_path / "none")
        assert "completion_tokens_saved" in ran.stdout
