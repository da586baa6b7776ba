"""A pair of messages as numbers: what alignment found, and the embeddings' cosine."""

from __future__ import annotations

import math
from collections import Counter

from forebay.cache.alignment import Alignment
from forebay.cache.analysis import Analysis, Token

NAMES = (
    "cosine",  # of the two match forms' unit vectors
    "cosine_above_90",  # what the cosine has over 0.9: where close paraphrases lie
    "replaced",  # content words left over on both sides: one stands in the other's place
    "added",  # content words left over on one side alone
    "light_added",  # light words left over, on either side
    "coverage",  # share of the content that is matched, on the side where it is less
    "matched",  # log(1 + matched words)
    "typos", "synonyms", "derived", "related",  # matches by kind
    "function_changed",  # small words on one side alone
    "decisive_changed",  # those of them that change answers: `over`, `last`, `without`
    "person_changed",  # `my` against `your`
    "asks_differ", "asks_missing",  # both name a kind of question, and not the same one; one names none
    "order",  # places where the order turns, beyond one phrase moved to the front
    "moved",  # a phrase moved to the front
    "governors_changed",  # matched words under another directed preposition
    "same_words",  # nothing but manners differs
    "length_ratio",  # log of the longer over the shorter, in content words
    "replaced_far",  # `replaced` times what the cosine lacks
)  # fmt: skip
_PERSONS = frozenset("i me my mine we us our you your yours he his she her they their them it its".split())
_DIRECTED = frozenset("from to into onto before after between over under without against during".split())


def features(first: Analysis, second: Analysis, alignment: Alignment, cosine: float) -> tuple[float, ...]:
    """In the order of `NAMES`; symmetric in the two messages."""
    ours, theirs = _heavy(alignment.only_first), _heavy(alignment.only_second)
    replaced, added = min(ours, theirs), abs(ours - theirs)
    light = len(alignment.only_first) + len(alignment.only_second) - ours - theirs
    kinds = Counter(match.kind for match in alignment.matches)
    matched = len(alignment.matches)
    longest = max(len(first.content), len(second.content), 1)
    function = _difference(Counter(first.function), Counter(second.function))
    decisive = _difference(Counter(first.decisive), Counter(second.decisive))
    persons = {word for word in first.function if word in _PERSONS} ^ {word for word in second.function if word in _PERSONS}
    turns, is_moved = _order(alignment)
    return (
        cosine,
        max(0.0, cosine - 0.9),
        replaced,
        added,
        light,
        (matched + 0.5) / (longest + 0.5) if light == 0 else (matched + 0.5 + 0.5 * light) / (longest + 0.5 + 0.5 * light),
        math.log1p(matched),
        kinds["typo"] + kinds["joined"],
        kinds["synonym"],
        kinds["derived"],
        kinds["related"],
        min(function, 8),
        min(decisive, 3),
        min(len(persons), 3),
        float(bool(first.asks - second.asks) and bool(second.asks - first.asks)),
        float(bool(first.asks) != bool(second.asks)),
        turns,
        float(is_moved),
        sum(
            bool(_DIRECTED & {first.content[match.first].governor, second.content[match.second].governor})
            and first.content[match.first].governor != second.content[match.second].governor
            for match in alignment.matches
        ),
        float(first.words == second.words),
        abs(math.log((len(first.content) + 1) / (len(second.content) + 1))),
        replaced * (1.0 - cosine),
    )


def _heavy(tokens: tuple[Token, ...]) -> int:
    return sum(not token.is_light for token in tokens)


def _difference(first: Counter[str], second: Counter[str]) -> int:
    return sum((first - second).values()) + sum((second - first).values())


def _order(alignment: Alignment) -> tuple[int, bool]:
    """(turns in the order of the matches, whether they are explained by one phrase moved to the front or the end)."""
    places = [match.second for match in alignment.matches]
    turns = [at for at in range(1, len(places)) if places[at] < places[at - 1]]
    if len(turns) == 1 and places[turns[0] :] + places[: turns[0]] == sorted(places):
        return 0, True
    return len(turns), False
