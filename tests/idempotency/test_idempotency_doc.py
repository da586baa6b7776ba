"""docs/idempotency.md says what the settings say."""

from __future__ import annotations

import re
from pathlib import Path

from forebay.settings import Settings

DOC = (Path(__file__).parents[2] / "docs" / "idempotency.md").read_text(encoding="utf-8")


def test_every_setting_is_described_with_its_default() -> None:
    """In the table of bounds."""
    stated = dict(re.findall(r"^\| `FOREBAY_(IDEMPOTENCY_\w+)` \| (\d+) \|", DOC, re.MULTILINE))
    ours = {name: field.default for name, field in Settings.model_fields.items() if name.startswith("idempotency_")}
    assert {name.lower(): float(value) for name, value in stated.items()} == ours
