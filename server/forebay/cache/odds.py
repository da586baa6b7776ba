"""Two opinions on one question, put together."""

from __future__ import annotations


def combined(chance: float, word: float) -> float:
    """A chance, with what another says for whom both answers were as likely before: the odds multiply, as far as the
    two err independently. Both in [0, 1]."""
    yes, no = chance * word, (1.0 - chance) * (1.0 - word)
    return yes / (yes + no) if yes + no > 0 else chance
