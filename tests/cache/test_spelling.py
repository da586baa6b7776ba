"""Slips of the finger put right: what is found, and that nothing is kept of what was looked for."""

from __future__ import annotations

import inspect
import random

import pytest

from forebay.cache import analysis, lemmas, near_words, spelling, words
from forebay.cache.lemmas import inflections, lemma_of
from forebay.cache.lexicon import english
from forebay.cache.near_words import LETTERS, NearWords
from forebay.cache.spelling import corrected, with_small_words_corrected

WORDS = ("a", "an", "and", "band", "bank", "banks", "banner", "brand", "nab", "nad", "zebra")


def slipped(word: str) -> set[str]:
    """All of it, letter by letter."""
    parts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    return {
        *(head + tail[1:] for head, tail in parts if tail),
        *(head + tail[1] + tail[0] + tail[2:] for head, tail in parts if len(tail) > 1),
        *(head + letter + tail[1:] for head, tail in parts for letter in LETTERS if tail),
        *(head + letter + tail for head, tail in parts for letter in LETTERS),
    }


def misspelt(rng: random.Random, word: str) -> str:
    return rng.choice(sorted(slipped(word)))


@pytest.mark.parametrize("num_slips", [0, 1, 2, 4])
def test_all_words_one_slip_away_are_found_and_no_others(num_slips: int) -> None:
    """As trying every letter in every place finds them."""
    rng, near = random.Random(num_slips), NearWords(WORDS)
    for _ in range(200):
        word = rng.choice(WORDS)
        for _ in range(num_slips):
            word = misspelt(rng, word)
        assert near.one_slip_from(word) == slipped(word).intersection(WORDS)


@pytest.mark.parametrize("word", ["", "b", "xq", "x" * 50])
def test_what_is_like_nothing_is_near_nothing_or_the_shortest(word: str) -> None:
    """An empty string included; and of an empty list nothing is near."""
    assert NearWords(WORDS).one_slip_from(word) == slipped(word).intersection(WORDS)
    assert NearWords(()).one_slip_from(word) == frozenset()


def test_every_inflection_of_a_word_can_be_what_was_meant() -> None:
    """Whatever the rules lead back to a known word is among the forms that are looked at for one."""
    rng, lexicon = random.Random(7), english()
    for word in rng.sample([word for word in list(lexicon.known)[:5000] if word.isalpha()], 1000):
        for ending in ("s", "es", "ies", "ed", "ied", "ing", "ying", f"{word[-1]}ed", f"{word[-1]}ing"):
            for form in (word + ending, word[:-1] + ending):
                lemma = lemma_of(form)
                if lemma != form and form not in lexicon.lemmas:
                    bases = {lemma, *(variant for variant, base in lexicon.lemmas.items() if base == lemma)}
                    assert any(form in set(inflections(base)) for base in bases), form


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("subscritpion", "subscription"), ("bookngs", "bookings"), ("recieve", "receive"), ("cheking", "checking"),
        ("qzxvbnm", "qzxvbnm"), ("password", "password"), ("naïvf", "naïvf"), ("teh", "teh"),
        ("x" * 25, "x" * 25),
    ],
)  # fmt: skip
def test_a_slip_becomes_the_likeliest_word(word: str, meant: str) -> None:
    """Short words, words that exist, names and other alphabets stay."""
    assert corrected(word) == meant


@pytest.mark.parametrize(
    ("word", "meant"), [("plaese", "please"), ("sholud", "should"), ("pasword", "pasword"), ("hwo", "hwo")]
)
def test_slips_in_small_words_alone(word: str, meant: str) -> None:
    """Those of grammar and manners of four letters or more; content is for alignment."""
    assert with_small_words_corrected(word) == meant


@pytest.mark.parametrize("module", [analysis, lemmas, near_words, spelling, words])
def test_nothing_is_remembered_of_what_users_write(module: object) -> None:
    """What is kept between calls takes no argument: it is made of the lexicon, and time tells nothing of users."""
    kept = [each for _, each in inspect.getmembers(module) if hasattr(each, "cache_info")]
    assert all(not inspect.signature(each).parameters for each in kept)
