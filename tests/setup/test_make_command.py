"""scripts/make_command.py: `forebay` as the pages write it, in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from forebay import __version__
from locks import ROOT


def test_the_command_runs_anywhere(run, tmp_path: Path) -> None:
    """Without the checkout's folder being current or on any path."""
    made = run(sys.executable, ROOT / "scripts" / "make_command.py", tmp_path / "forebay")
    assert made.returncode == 0, made.stderr
    said = run(tmp_path / "forebay", "version")
    assert said.returncode == 0, said.stderr
    assert __version__ in said.stdout
