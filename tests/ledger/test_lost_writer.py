"""A ledger whose writer has ended by a defect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from support.server import SERVER_ROOT

LOST_WRITER = """
import sys
from forebay.serving import run
from forebay.settings import Settings

def announce(listening):
    def break_down(seconds, num_writes):
        raise RuntimeError("a defect")

    listening.services.database.writer.on_commit = break_down
    print(listening.url, flush=True)

sys.exit(run(Settings(engine="scripted", port=0, log_format="json"), announce))
"""


def test_a_ledger_whose_writer_ended_ends_the_process_non_zero(tmp_path: Path) -> None:
    """What nobody accounts for is not served: who waits gets 503, new work too, and the next start settles the rest."""
    env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT), "FOREBAY_DATA_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", LOST_WRITER], env=env, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=20) as http:
            answer = http.post(
                "/v1/chat/completions", json={"model": "scripted", "messages": [{"role": "user", "content": "go"}]}
            )
            assert answer.status_code == 503
        _, log = process.communicate(timeout=20)
    assert process.returncode == 70
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    reasons = {line["event"]: line.get("reason") for line in lines}
    assert "writer_lost" in reasons
    assert "writer" in reasons["service_lost"]
    again = [sys.executable, "-m", "forebay", "ledger", "verify"]
    assert subprocess.run(again, env=env, check=False, capture_output=True).returncode == 0
