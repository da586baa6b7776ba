"""What the decision knows of English: word lists and the hand-kept lexicon, read once from the package.

`words.txt.gz` and `relations.txt.gz` come from WordNet 3.0 (see data/WORDNET-LICENSE and scripts/build_lexicon.py),
`english.toml` is kept by hand.
"""

from __future__ import annotations

import gzip
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations

Phrase = tuple[str, ...]
ASKER, ASKED = "@i", "@you"
"""Follow a question's kind whose phrase held `i` or `you`: `how do i`, `how do you`; `how to` has neither."""


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words in lower case, `known` with their rank: the lower, the more frequent.

    `synonyms`, `related`, `derived` and `opposites` are symmetric, over lemmas: `synonyms` are kept by hand; `related`
    share one of WordNet's first senses, which another sense may belie. `small` are the words of grammar and manners,
    `social` those of manners that a part of a message may consist of.
    `phrases` maps the words of a phrase to those that stand for it; `longest` the number of words that those with one
    first word have at most.
    """

    known: Mapping[str, int]
    function: frozenset[str]
    light: frozenset[str]
    decisive: frozenset[str]
    weighty: frozenset[str]
    negators: frozenset[str]
    reversers: frozenset[str]
    owners: frozenset[str]
    small: frozenset[str]
    social: frozenset[str]
    openings: frozenset[Phrase]
    closings: frozenset[Phrase]
    fillers: frozenset[Phrase]
    phrases: Mapping[Phrase, Phrase]
    longest: Mapping[str, int]
    lemmas: Mapping[str, str]
    synonyms: Mapping[str, frozenset[str]]
    related: Mapping[str, frozenset[str]]
    derived: Mapping[str, frozenset[str]]
    opposites: Mapping[str, frozenset[str]]


def word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


@cache
def english() -> Lexicon:
    """Takes about 0.1 s the first time and 20 MB."""
    folder = files("forebay.cache").joinpath("data")
    hand = tomllib.loads(folder.joinpath("english.toml").read_text(encoding="utf-8"))
    known = gzip.decompress(folder.joinpath("words.txt.gz").read_bytes()).decode().split("\n")
    pairs: dict[str, list[tuple[str, str]]] = {"s": [], "d": [], "o": []}
    for line in gzip.decompress(folder.joinpath("relations.txt.gz").read_bytes()).decode().split("\n"):
        kind, first, second = line.split(" ")
        pairs[kind].append((first, second))
    synonyms = _symmetric(
        pair for line in hand["synonyms"].strip().split("\n") for pair in combinations(line.split(), 2)
    )
    phrases = dict(_phrases(hand["phrases"]))
    function = word_set(hand["function"])
    words = [pair.split() for pair in _entries(hand["irregular"])]
    variants = [pair.split() for pair in _entries(hand["variants"])]
    openings, closings, fillers = (
        frozenset(tuple(entry.split()) for entry in _entries(hand[name])) for name in ("opening", "closing", "anywhere")
    )
    return Lexicon(
        known={
            word: rank for rank, word in enumerate([*known, *(word for words in phrases.values() for word in words)])
        },
        function=function | word_set(hand["decisive"]) | word_set(hand["weighty"]),
        light=word_set(hand["light"]),
        decisive=word_set(hand["decisive"]),
        weighty=word_set(hand["weighty"]),
        negators=word_set(hand["negators"]),
        reversers=word_set(hand["reversers"]),
        owners=word_set(hand["owners"]),
        small=function.union(
            hand["light"].split(),
            *openings,
            *closings,
            *fillers,
            *(words for words in phrases if phrases[words][0][0] == "@"),
        ),
        social=word_set(hand["social"]),
        openings=openings,
        closings=closings,
        fillers=fillers,
        phrases=phrases,
        longest={phrase[0]: len(phrase) for phrase in sorted(phrases, key=len)},
        lemmas=dict([*words, *variants]),
        synonyms=synonyms,
        related=_symmetric(pairs["s"]),
        derived=_symmetric(pairs["d"]),
        opposites=_symmetric([*pairs["o"], *_widened(hand["opposites"], synonyms)]),
    )


def _entries(text: str) -> Iterator[str]:
    """The entries of a hand-kept list: between bars and line ends."""
    for line in text.strip().split("\n"):
        for entry in line.split("|"):
            if entry.strip():
                yield entry.strip()


def _phrases(text: str) -> Iterator[tuple[Phrase, Phrase]]:
    for entry in _entries(text):
        words, meaning = (tuple(part.split()) for part in entry.split(">"))
        if meaning[0].startswith("@") and not {"i", "we", "me"}.isdisjoint(words):
            meaning = (*meaning, ASKER)
        elif meaning[0] in {"@how", "@where"} and "you" in words:
            meaning = (*meaning, ASKED)
        yield words, meaning


def _widened(text: str, synonyms: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str]]:
    """Hand-kept opposites, and the synonyms of either: `raise` against `decrease` through `increase`."""
    for entry in _entries(text):
        first, second = entry.split()
        yield first, second
        yield from ((synonym, second) for synonym in synonyms.get(first, ()) if synonym != second)
        yield from ((first, synonym) for synonym in synonyms.get(second, ()) if synonym != first)


def _symmetric(pairs: Iterable[tuple[str, str]]) -> Mapping[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for first, second in pairs:
        found[first].add(second)
        found[second].add(first)
    return {word: frozenset(others) for word, others in found.items()}
