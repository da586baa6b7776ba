"""What one user asks, turn after turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """`prompt` is text, or token ids for the completions API."""

    prompt: str | Sequence[int]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Session:
    """Every turn follows the answer to the one before. `at_s`: when the file says that it began, if it does."""

    turns: tuple[Turn, ...]
    at_s: float | None = None
