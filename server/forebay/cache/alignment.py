"""Which content words of two messages stand for each other, and which stand alone."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Literal

from forebay.cache.analysis import MAX_WORDS, Analysis, Token
from forebay.cache.lexicon import english, word_set
from forebay.cache.spelling import slips

MAX_LEFT = 256
"""Pairs of words, left over by equality, that are looked at for other relations."""
Kind = Literal["same", "typo", "joined", "synonym", "derived", "related"]


@dataclass(frozen=True, slots=True)
class Match:
    """`first` and `second` are places in the two messages' content."""

    kind: Kind
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Alignment:
    """Matches in the order of the first message, and what is left of both."""

    matches: tuple[Match, ...]
    only_first: tuple[Token, ...]
    only_second: tuple[Token, ...]


def align(first: Analysis, second: Analysis) -> Alignment:
    """The surest relation first, each word once; of equal words the nearest by place.

    Messages too long to be compared, and leftovers too many for it to matter how they relate, stay unmatched.
    """
    if max(first.num_words, second.num_words) > MAX_WORDS:
        return Alignment((), first.content, second.content)
    ours, theirs = dict(enumerate(first.content)), dict(enumerate(second.content))
    matches = _pair_same(ours, theirs)
    if ours and theirs:
        matches += _join(ours, theirs)
        matches += [Match(match.kind, match.second, match.first) for match in _join(theirs, ours)]
    for kind, is_match in _RELATIONS:
        if not 0 < len(ours) * len(theirs) <= MAX_LEFT:
            break
        for place, token in list(ours.items()):
            found = [at for at, other in theirs.items() if is_match(token, other)]
            if found:
                nearest = min(found, key=lambda at: abs(at - place))
                matches.append(Match(kind, place, nearest))
                del ours[place], theirs[nearest]
    matches.sort(key=lambda match: match.first)
    return Alignment(tuple(matches), tuple(ours.values()), tuple(theirs.values()))


def _pair_same(ours: dict[int, Token], theirs: dict[int, Token]) -> list[Match]:
    """One lemma, as of one word, too."""
    found, places = [], _places((other.lemma, at) for at, other in theirs.items())
    for place, token in list(ours.items()):
        if same := places.get(token.lemma):
            after = bisect_left(same, place)
            nearest = min(same[max(0, after - 1) : after + 1], key=lambda at: abs(at - place))
            same.remove(nearest)
            found.append(Match("same", place, nearest))
            del ours[place], theirs[nearest]
    return found


def _join(ours: dict[int, Token], theirs: dict[int, Token]) -> list[Match]:
    """`data base` in one message, `database` in the other."""
    found, places = [], _places((other.word, at) for at, other in theirs.items())
    for place in sorted(ours):
        if place in ours and place + 1 in ours and (same := places.get(ours[place].word + ours[place + 1].word)):
            at = same.pop(0)
            found.append(Match("joined", place, at))
            del ours[place], ours[place + 1], theirs[at]
    return found


def _places(forms: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Of each form, in order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for form, at in forms:
        found[form].append(at)
    return found


def is_misspelling(first: Token, second: Token) -> bool:
    """One of them is no word and one or two slips away from the other, which is one.

    Two words that both exist (Austria, Australia) and two that do not (names, drugs) are never taken for one.
    """
    if first.is_known == second.is_known:
        return False
    length = min(len(first.word), len(second.word))
    if length < 3 or abs(len(first.word) - len(second.word)) > 2:
        return False
    known, unknown = (first, second) if first.is_known else (second, first)
    limit = 1 if length < 7 else 2
    return any(
        slips(unknown.word, form, limit) <= limit and not _is_inflection(unknown.word, form)
        for form in {known.word, known.lemma}
    )


def _is_inflection(unknown: str, known: str) -> bool:
    """A prefix is no slip: `unfreeze` and `freeze`."""
    return len(unknown) > len(known) and unknown.endswith(known)


def _are_synonyms(first: Token, second: Token) -> bool:
    known = english().synonyms
    return second.lemma in known.get(first.lemma, ()) or second.word in known.get(first.word, ())


def _are_derived(first: Token, second: Token) -> bool:
    return second.lemma in english().derived.get(first.lemma, ())


def _are_related(first: Token, second: Token) -> bool:
    return second.lemma in english().related.get(first.lemma, ())


_AGAINST = tuple(word_set("un in im dis non il ir mis de re over under pre post anti self"))


def opposites_between(ours: Set[str], theirs: Set[str]) -> tuple[str, str] | None:
    """By list or by prefix: `open` and `closed`, `successful` and `unsuccessful`. The first in alphabetical order."""
    listed, none = english().opposites, frozenset[str]()
    prefixed = defaultdict(set)
    for other in theirs:
        for bare in _without_prefix(other):
            prefixed[bare].add(other)
    for one in sorted(ours):
        against = theirs & listed.get(one, none) | prefixed.get(one, none) | theirs & set(_without_prefix(one))
        if against := against - {one}:
            return one, min(against)
    return None


def _without_prefix(word: str) -> Iterator[str]:
    if word.startswith(_AGAINST):
        yield from (
            word.removeprefix(prefix) for prefix in _AGAINST if word.startswith(prefix) and len(word) > len(prefix) + 2
        )


_RELATIONS: tuple[tuple[Kind, Callable[[Token, Token], bool]], ...] = (
    ("typo", is_misspelling),
    ("synonym", _are_synonyms),
    ("derived", _are_derived),
    ("related", _are_related),
)
