"""Slips of the finger: how far two spellings are apart, and the word that one likely means."""

from __future__ import annotations

from functools import cache

from forebay.cache.lemmas import inflections, lemma_of
from forebay.cache.lexicon import english
from forebay.cache.near_words import NearWords

# Of the words in their order of frequency: a correction to a rare word is more often wrong than right.
MAX_RANK = 20_000
MIN_LENGTH, MAX_LENGTH = 5, 24


def slips(first: str, second: str, limit: int) -> int:
    """Letters missing, added, changed or swapped with their neighbour; `limit` + 1 where there are more.

    Optimal string alignment distance (Damerau 1964), of prefixes whose lengths differ by no more than `limit`.
    """
    if abs(len(first) - len(second)) > limit:
        return limit + 1
    letters, others = set(first), set(second)
    if len(letters - others) > limit or len(others - letters) > limit:  # a slip brings one letter, and takes one
        return limit + 1
    before: list[int] = []
    row = list(range(len(second) + 1))
    for at, letter in enumerate(first, 1):
        older, before, row = before, row, [at, *[limit + 1] * len(second)]
        for place in range(max(1, at - limit), min(at + limit, len(second)) + 1):
            other = second[place - 1]
            cost = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (letter != other))
            if at > 1 and place > 1 and letter == second[place - 2] and first[at - 2] == other:
                cost = min(cost, older[place - 2] + 1)
            row[place] = cost
        if min(row) > limit:
            return limit + 1
    return min(row[-1], limit + 1)


def corrected(word: str) -> str:
    """A word that does not exist as the one it likely means: two letters swapped back, else the most frequent word one
    slip away; any other word as it is.

    Norvig, "How to Write a Spelling Corrector", 2007.
    """
    if not MIN_LENGTH <= len(word) <= MAX_LENGTH or not word.isascii() or not word.isalpha() or is_known(word):
        return word
    swapped = (word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(1, len(word) - 1))
    for candidates, max_rank in ((swapped, len(english().known)), (_frequent().one_slip_from(word), MAX_RANK)):
        rank, best = min(((_rank(candidate), candidate) for candidate in candidates), default=(max_rank, word))
        if rank < max_rank:
            return best
    return word


def _rank(word: str) -> int:
    """By the dictionary form; the ending says of most letter strings that they are no inflection."""
    known = english().known
    if word in known or word.endswith(("s", "ed", "ing")):
        return known.get(lemma_of(word), len(known))
    return len(known)


def with_small_words_corrected(word: str) -> str:
    """A slip in a word of manners or grammar (`plaese`, `sholud`) put right; any other word as it is.

    A slip in a content word is for alignment to judge, beside the other message's word.
    """
    if not 4 <= len(word) <= MAX_LENGTH or not word.isascii() or not word.isalpha() or is_known(word):
        return word
    return min(_small().one_slip_from(word), default=word)


def is_known(word: str) -> bool:
    known = english().known
    return word in known or lemma_of(word) in known


def load_words() -> None:
    """The lexicon and what is looked up in it, once: takes about 0.3 s and 40 MB, which no request should wait for."""
    _frequent()
    _small()


@cache
def _frequent() -> NearWords:
    """What has a rank below `MAX_RANK`, among others."""
    lexicon = english()
    known, lemmas = lexicon.known, lexicon.lemmas
    words = [word for word in known if known.get(lemmas.get(word, word), MAX_RANK) < MAX_RANK]
    return NearWords([*lemmas, *words, *(form for word in words for form in inflections(word))])


@cache
def _small() -> NearWords:
    return NearWords(word for word in english().small if len(word) > 3)
