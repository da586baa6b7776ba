"""`bench serve` that is ended in the middle of a sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.server import SERVER_ROOT, ServerProcess


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_steps_that_ended_are_kept_when_the_rest_is_given_up(
    server: ServerProcess, tmp_path: Path, number: signal.Signals
) -> None:
    """As JSON and CSV; what was interrupted is in neither."""
    words = ["--base-url", server.url, "--max-concurrency", "1", "2", "--num-prompts", "2", "1000000"]
    words += ["--output-len", "2", "--label", "run", "--result-dir", str(tmp_path)]
    command = [sys.executable, "-m", "forebay", "bench", "serve", *words]
    env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT)}
    with subprocess.Popen(command, env=env, stdout=-1, stderr=-1, text=True, preexec_fn=heed_interrupts) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "== conc1\n"
        time.sleep(0.5)
        bench.send_signal(number)
        said, _ = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert {path.name for path in tmp_path.iterdir()} == {"run-conc1.json", "run.csv"}
    assert said.endswith("run-conc1.json\n" + f"{tmp_path}/run.csv\n")


def heed_interrupts() -> None:
    """In the child: a shell's background jobs ignore SIGINT, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
