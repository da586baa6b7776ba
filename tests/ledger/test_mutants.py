"""Bugs that ledgers have had, put into ours one at a time: the tests of it must notice each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MACHINE = "tests/ledger/test_machine.py"


@dataclass(frozen=True)
class Mutant:
    """`edits`: file of the package, what stands there, what to put in its place. `caught_by`: the tests to run."""

    edits: tuple[tuple[str, str, str], ...]
    caught_by: str = MACHINE


MUTANTS = {
    "dropped row": Mutant(
        (("ledger/writes.py", "            rows.append(row)\n", "            rows = [*rows[1:], row]\n"),),
        f"{MACHINE} tests/ledger/test_accounts.py",
    ),
    "doubled row": Mutant(
        (
            ("ledger/writes.py", "still_open.remove(row.request_id)", "pass"),
            ("stores/schema.py", "UNIQUE (request_id, kind)", "CHECK (seq > 0)"),
        )
    ),
    "`or` estimate": Mutant(
        (
            (
                "ledger/rows.py",
                "billed.completion_tokens, billed.reasoning_tokens,",
                "billed.completion_tokens or self.completion_tokens, billed.reasoning_tokens,",
            ),
        )
    ),
    "lost update": Mutant(
        (("stores/schema.py", "num_tokens = num_tokens + excluded.num_tokens", "num_tokens = excluded.num_tokens"),)
    ),
    "orphaned reservation": Mutant(
        (("ledger/ledger.py", 'account.settle("client_gone", NOTHING, NOTHING)', "self._open.pop(held.request_id)"),)
    ),
    "off by one": Mutant(
        (
            (
                "ledger/account.py",
                "num_tokens <= self._durable + self._allowance",
                "num_tokens <= self._durable + self._allowance + 1",
            ),
        ),
        "tests/ledger/test_cover.py",
    ),
}


def pytest_in(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder / "server"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.mark.parametrize("name", MUTANTS)
def test_the_tests_notice(tmp_path: Path, name: str) -> None:
    """A test fails by an assertion on what the ledger says, and not by the mutant's not starting."""
    for file in ("server", "tests", "scripts"):
        shutil.copytree(ROOT / file, tmp_path / file, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, stands, instead in MUTANTS[name].edits:
        file_path = tmp_path / "server" / "forebay" / path
        source = file_path.read_text(encoding="utf-8")
        assert source.count(stands) == 1, f"{path} has changed: the mutant must follow it"
        file_path.write_text(source.replace(stands, instead), encoding="utf-8")
    ran = pytest_in(tmp_path, MUTANTS[name].caught_by)
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert "AssertionError" in ran.stdout or "assert" in ran.stdout
    assert "ImportError" not in ran.stdout
