"""Numbers of a state that comes from elsewhere."""

from __future__ import annotations

from typing import Any

MOST = 1e15
"""Beyond any count of labels; larger whole numbers would be none of floating point."""


def number(value: Any, least: float = 0.0, most: float = MOST) -> float:
    """As JSON has it. Raises ValueError for what is no number between them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError("not the state of labels")
    return float(value)


def count(value: Any, least: int = 0) -> int:
    """The same of a whole number."""
    if not isinstance(value, int):
        raise ValueError("not the state of labels")
    number(value, least)
    return value
