"""Fail for a Python file over three hundred lines (a file holds one concept) or a line over 120 columns.

Run by `make lint`.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("server", "scripts", "tests", "benchmarks")
MAX_LINES = 300
MAX_COLUMNS = 120


def oversized() -> list[str]:
    """`path: N lines` of every Python file that is too long."""
    lengths = {path: len(lines) for path, lines in _files().items()}
    return [f"{path}: {num_lines} lines" for path, num_lines in lengths.items() if num_lines > MAX_LINES]


def overlong() -> list[str]:
    """`path:line: N columns` of every line that is too long; a column is a character, as for ruff's E501."""
    return [
        f"{path}:{number}: {len(line)} columns"
        for path, lines in _files().items()
        for number, line in enumerate(lines, 1)
        if len(line) > MAX_COLUMNS
    ]


def _files() -> dict[Path, list[str]]:
    """The lines of every Python file, by its path in the repository."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): path.read_text(encoding="utf-8").splitlines() for path in files}


if __name__ == "__main__":
    found = [*oversized(), *overlong()]
    limits = f"A file stops at {MAX_LINES} lines, a line at {MAX_COLUMNS} columns."
    sys.exit("\n".join([*found, limits]) if found else 0)
