"""scripts/make_venv.py: the Pythons that the locks are for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from locks import ROOT

AS_ANOTHER = """
import runpy, sys
script, target, version = sys.argv[1:]
sys.version_info = tuple(int(part) for part in version.split("."))
sys.version = version
sys.argv = [script, target]
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0"])
def test_a_python_the_locks_are_not_for_is_refused(run, tmp_path: Path, version: str) -> None:
    """Older or newer, it is named beside those that would do and the way to name one; nothing is made."""
    script = ROOT / "scripts" / "make_venv.py"
    done = run(sys.executable, "-c", AS_ANOTHER, script, tmp_path / "venv", version)
    assert done.returncode == 1
    assert f"3.11 to 3.13; {sys.executable} is {version}." in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()
