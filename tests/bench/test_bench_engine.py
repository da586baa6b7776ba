"""`bench engine`: one load through HTTP and on the engine alone, at a scale at which figures say nothing."""

from __future__ import annotations

import json
from pathlib import Path

from support.command import forebay


def test_both_sides_are_asked_the_same_in_pairs(tmp_path: Path) -> None:
    """By number of streams the ratio of seven pairs with its interval; HTTP costs more than nothing."""
    words = ["--engine", "scripted", "--streams", "1", "4", "--tokens", "64", "--input-len", "8"]
    ran = forebay("bench", "engine", *words, data_dir=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["environment"]["cores"] >= 1
    assert (found["engine"]["input_len"], found["engine"]["output_len"]) == (8, 64)
    assert found["engine"]["streams"].keys() == {"1", "4"}
    for each in found["engine"]["streams"].values():
        assert each["pairs"] == 7
        assert each["ratio_95"][0] <= each["ratio"] <= each["ratio_95"][1] < 1
        assert 0 < each["http_tokens_per_s"] < each["bare_tokens_per_s"]


def test_an_engine_that_does_not_start_is_said(tmp_path: Path) -> None:
    """Exit code 2, and the reason that the server gave."""
    words = ["--engine", "transformers", "--model", str(tmp_path / "nothing")]
    ran = forebay("bench", "engine", *words, data_dir=tmp_path)
    assert ran.returncode == 2
    assert "did not start" in ran.stderr
    assert "nothing" in ran.stderr


def test_few_pairs_are_refused(tmp_path: Path) -> None:
    """Six have no interval worth publishing."""
    ran = forebay("bench", "engine", "--engine", "scripted", "--pairs", "6", data_dir=tmp_path)
    assert ran.returncode == 2
    assert "7 pairs at least" in ran.stderr
