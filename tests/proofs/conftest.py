"""Long proofs, run by `make prove`: what each found is written under docs/proofs/, by day."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forebay.bench.environment import environment

ROOT = Path(__file__).parents[2]
PROOFS = ROOT / "docs" / "proofs"
MAX_CELL_CHARS = 1000

Proof = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is long."""
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.prove)
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture
def proof() -> Proof:
    """`proof(name, claim, **figures)`: what was shown, and by which figures."""
    began = time.monotonic()
    where = environment()

    def write(name: str, claim: str, **figures: Any) -> None:
        today = datetime.now(UTC).strftime("%Y-%m-%d")
        folder = PROOFS / today
        folder.mkdir(parents=True, exist_ok=True)
        record = {
            "claim": claim,
            "figures": figures,
            "took_s": round(time.monotonic() - began, 1),
            "date": today,
            "commit": where["commit"],
            "environment": where | {"sqlite": sqlite3.sqlite_version},
        }
        (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        write_table(folder)

    return write


def write_table(folder: Path) -> None:
    """The day's records for people."""
    lines = [f"# Proofs of {folder.name}", "", "Written by `make prove`. The JSON files hold machine and versions.", ""]
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        lines += [f"## {path.stem}", "", record["claim"], "", "| figure | value |", "| --- | --- |"]
        for name, value in record["figures"].items():
            text = shown(value)
            text = text if len(text) <= MAX_CELL_CHARS else f"in [{path.name}]({path.name})"
            lines.append(f"| {name.replace('_', ' ')} | {text} |")
        lines += ["", f"Commit {record['commit']}, {record['took_s']} s.", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
