"""Peers run beside Forebay on the demo model, and both are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.bench.peers import PEERS
from forebay.bench.process import child_environment
from proofs.conftest import Proof

pytest.importorskip("vllm")

LOAD = ["--max-concurrency", "4", "--num-prompts", "4", "--input-len", "16", "--output-len", "8", "--ignore-eos"]


@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_is_started_asked_the_same_and_stopped(peer: str, tmp_path: Path, proof: Proof) -> None:
    """Seven pairs without a failure; both commands are said. Its figures at this size say nothing."""
    words = [sys.executable, "-m", "forebay", "bench", "compare", "--peer", peer, *LOAD, "--json"]
    ran = subprocess.run(
        words, env=child_environment({"TMPDIR": str(tmp_path)}), capture_output=True, text=True, timeout=1800
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["compare"]
    assert found["output_throughput"]["pairs"] == 7
    assert found["median_ttft_ms"]["b"] > 0
    commands = [line for line in ran.stderr.splitlines() if line.startswith(("A: ", "B: "))]
    assert len(commands) == 2, ran.stderr
    proof(f"peer-{peer}", f"{PEERS[peer]} runs beside Forebay by one switch.", pairs=7)
