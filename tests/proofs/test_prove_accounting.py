"""What keys, limits, budgets and the ledger cost a request."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from proofs.conftest import ROOT, Proof

MOST_CPU_US = 100
MOST_OVER_FDATASYNC = 5


def test_accounting_costs_little(proof: Proof) -> None:
    """The scripted engine at saturation, the server on one core; nine pairs of rounds, and three of commits for each
    number of connections. On a machine without other work: beside some, all of it takes a third more."""
    script = [sys.executable, "benchmarks/accounting_cost.py", "--pairs", "9"]
    found = json.loads(subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    proof(
        "accounting-cost",
        "Keys, limits, budgets and the ledger add at most 100 us of CPU to a request at saturation, and a group "
        "commit's 99th percentile is at most five times that of the machine's own fdatasync, in the median of three "
        "rounds.",
        **found,
    )
    assert found["added_cpu_us"] <= MOST_CPU_US
    for figures in found["commits"].values():
        assert statistics.median(figures["p99_over_fdatasync"]) <= MOST_OVER_FDATASYNC
