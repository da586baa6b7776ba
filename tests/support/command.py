"""`forebay` as a command, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.server import SERVER_ROOT


def forebay(*args: str, data_dir: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """On a data folder; warnings are errors. A server takes a port that is free."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    own = {"FOREBAY_DATA_DIR": str(data_dir), "FOREBAY_PORT": "0", "FOREBAY_ADMIN_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "forebay", *args],
        env={**inherited, "PYTHONPATH": str(SERVER_ROOT), "COLUMNS": "200", **own, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
