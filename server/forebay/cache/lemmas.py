"""A word's dictionary form, by rule and list."""

from __future__ import annotations

from collections.abc import Iterator

from forebay.cache.lexicon import english


def lemma_of(word: str) -> str:
    """`bookings` is `booking`, `posted` `post`, `colour` `color`; what no rule brings to a known word stays."""
    lexicon = english()
    seen = lexicon.lemmas.get(word)
    if seen is not None:
        return lexicon.lemmas.get(seen, seen)
    for candidate in _candidates(word):
        if candidate in lexicon.known:
            return lexicon.lemmas.get(candidate, candidate)
    return word


def _candidates(word: str) -> list[str]:
    """What the word may be an inflection of, the likeliest first."""
    if len(word) < 4 or word.endswith(("ss", "us", "is")):
        return []
    if word.endswith("ies"):
        return [word[:-3] + "y", word[:-1]]
    if word.endswith("s"):
        return [word[:-1], word[:-2]] if word.endswith("es") else [word[:-1]]
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3:
            undoubled = [stem[:-1]] if stem[-1] == stem[-2] and stem[-1] not in "ls" else []
            longer = [stem[:-1] + "y"] if stem.endswith("i") else []
            return (
                [*undoubled, *longer, stem + "e", stem] if _takes_e(stem) else [*undoubled, *longer, stem, stem + "e"]
            )
    return []


def inflections(word: str) -> Iterator[str]:
    """All that `_candidates` may bring to the word, among forms that nobody writes."""
    yield from (word + "s", word + "es")
    if word.endswith("y"):
        yield from (word[:-1] + "ies", word[:-1] + "ied", word[:-1] + "iing")
    for ending in ("ing", "ed"):
        yield from (word + ending, word + word[-1] + ending)
        if word.endswith("e"):
            yield word[:-1] + ending


def _takes_e(stem: str) -> bool:
    """Whether the verb likelier ends in e: `update` from `updating`, yet `cook` from `cooking`."""
    return stem[-1] in "cvuz" or (
        len(stem) > 2 and stem[-1] in "tsgrdklmnp" and stem[-2] in "aiou" and stem[-3] not in "aeiou"
    )
