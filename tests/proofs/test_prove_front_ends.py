"""Forebay's front end beside vLLM's own, on a vLLM whose engine costs next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from forebay.bench.process import child_environment
from proofs.conftest import ROOT, Proof

pytest.importorskip("vllm")

LEAST_WHOLE, LEAST_STREAMED = 2.19, 1.97
"""Of vLLM's server: 4,000 requests/s and 90,000 tokens/s where it made 1,828 and 45,600."""


def test_it_serves_twice_as_much(proof: Proof) -> None:
    """Whole answers of 16 tokens and streams, one core for the server, nine rounds in turn. On a machine without other
    work."""
    model = _run("-m", "forebay", "model", "prepare").strip()
    script = ["benchmarks/front_ends.py", "--model", model, "--rounds", "9"]
    found = json.loads(_run(*script))["front_ends"]
    proof(
        "front-ends",
        f"With keys, limits, budgets, ledger and exact cache on, Forebay on its scripted engine serves {LEAST_WHOLE} "
        f"times the whole answers and {LEAST_STREAMED} times the streamed tokens of vLLM's own server with its "
        "defaults, on a vLLM whose engine costs next to nothing; what Forebay makes on that vLLM is beside it.",
        **found,
    )
    assert _ratio(found["whole"]["requests_per_s_of_vllm"]) >= LEAST_WHOLE
    assert _ratio(found["streams"]["tokens_per_s_of_vllm"]) >= LEAST_STREAMED


def _run(*words: str) -> str:
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, env=child_environment({}), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _ratio(of_vllm: dict[str, str]) -> float:
    """The median, as `2.56 (2.47 to 2.67)` says it."""
    return float(of_vllm["scripted"].split()[0])
