"""What the cache costs a request: a hit, a semantic look-up among many entries, a miss on a real engine."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from proofs.conftest import ROOT, Proof

HIT_MS = 0.3
LOOK_UP_P50_MS, LOOK_UP_P99_MS = 12.0, 30.0
LOOP_MS = 5.0
KEPT_THROUGHPUT = 0.95


def measured(*words: str) -> dict[str, Any]:
    script = [sys.executable, "benchmarks/cache_speed.py", *words]
    return dict(json.loads(subprocess.run(script, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout))


def test_a_hit_of_the_exact_tier(proof: Proof) -> None:
    """It takes hardly longer than generating with an engine that takes no time."""
    found = measured("--parts", "exact")
    exact = found["exact"]
    proof(
        "cache-speed-exact",
        f"A hit of the exact tier adds at most {HIT_MS} ms to the median request (upper end of the 95% interval).",
        load_average_before=found["load_average_before"],
        **exact,
    )
    assert exact["hit_adds"]["p50_ms"]["to"] <= HIT_MS


def test_a_semantic_look_up_among_50_000_entries(proof: Proof) -> None:
    """At 30 requests/s, embedding included; the event loop goes on meanwhile."""
    found = measured("--parts", "semantic")
    semantic = found["semantic"]
    proof(
        "cache-speed-semantic",
        f"A semantic look-up among 50,000 entries at 30 requests/s takes at most {LOOK_UP_P50_MS:g} ms in the median "
        f"and {LOOK_UP_P99_MS:g} ms at the 99th percentile; the event loop's 99.9th percentile grows by at most "
        f"{LOOP_MS:g} ms.",
        load_average_before=found["load_average_before"],
        **semantic,
    )
    assert semantic["look_up_p50_ms"] <= LOOK_UP_P50_MS
    assert semantic["look_up_p99_ms"] <= LOOK_UP_P99_MS
    assert semantic["loop_p999_ms_more"] <= LOOP_MS


@pytest.mark.parametrize("tier", ["exact", "semantic"])
def test_a_miss_on_a_real_engine(tier: str, proof: Proof) -> None:
    """vLLM at 16 streams: the median ratio of seven pairs, with every look-up made."""
    pytest.importorskip("vllm")
    found = measured("--parts", "miss", "--tier", tier)
    miss = found["miss"]
    proof(
        f"cache-miss-{tier}",
        f"A miss of the {tier} tier costs vLLM at 16 streams at most {1 - KEPT_THROUGHPUT:.0%} of its throughput.",
        load_average_before=found["load_average_before"],
        **miss,
    )
    assert miss["output_throughput"]["ratio"] >= KEPT_THROUGHPUT
