"""Prompts of a wanted length: token ids where the API takes them, else words that most vocabularies have whole."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeAlias

Prompt: TypeAlias = str | Sequence[int]

TEXT = (
    "the of and to in is that it was for on are with as they be at one have this from or had by hot but some what "
    "there we can out other were all your when up use word how said each she which do their time if will way about "
    "many then them would write like so these her long make thing see him two has look more day could go come did my "
    "sound no most number who over know water than call first people may down side been learn find any new work part "
    "take get place made live where after back little only round man year came show every good me give our under name"
)
"""None of them names the moment: the cache's semantic tier looks nothing up for a text that does."""

WORDS = TEXT.split()


class PromptMaker:
    """Draws prompts of `num_tokens`. Text has one word a token, which `usage` corrects; a template adds to it."""

    def __init__(self, rng: random.Random, as_text: bool, token_ids: range) -> None:
        self._rng = rng
        self._as_text = as_text
        self._token_ids = token_ids

    def draw(self, num_tokens: int) -> Prompt:
        if self._as_text:
            return " ".join(self._rng.choices(WORDS, k=num_tokens))
        return self._rng.choices(self._token_ids, k=num_tokens)

    def length(self, mean: int, range_ratio: float) -> int:
        """Uniform within `mean` +- `mean` * `range_ratio`, at least 1."""
        return max(1, self._rng.randint(round(mean * (1 - range_ratio)), round(mean * (1 + range_ratio))))


def joined(first: Prompt, second: Prompt) -> Prompt:
    if isinstance(first, str):
        return f"{first} {second}"
    return [*first, *(second if not isinstance(second, str) else ())]
