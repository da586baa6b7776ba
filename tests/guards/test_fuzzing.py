"""Requests made from our own OpenAPI document, valid and not, against a running server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.door import KEY
from support.server import ServerProcess

TESTS = Path(__file__).parents[1]
BUDGET_S = 12
CHECKED = "all,valid_requests_are_accepted"
LEFT_OUT = "positive_data_acceptance"  # support/fuzzing.py replaces it


@pytest.mark.timeout(120)
def test_the_document_holds_against_the_server(exposed: ServerProcess, tmp_path: Path) -> None:
    """No 5xx; answers have the documented status, type and shape; what fits the schema is accepted, what does not is
    refused; without a key nothing is answered; undocumented methods are 405.

    The seed is fixed: another day's findings come from changes, not from luck.
    """
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{exposed.url}/openapi.json"),
            *("--url", exposed.url, "--header", f"Authorization: Bearer {KEY}"),
            *("--checks", CHECKED, "--exclude-checks", LEFT_OUT),
            *("--phases", "coverage,fuzzing", "--max-examples", "20", "--max-time", str(BUDGET_S), "--seed", "1"),
            *("--continue-on-failure", "--no-color", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "support.fuzzing", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout[-20_000:] + done.stderr[-5_000:]
    assert done.returncode == 0, report
    assert "16/16" in report, report
    assert exposed.process is not None
    assert exposed.process.poll() is None
