"""A pair of messages as numbers: what alignment found, and the embeddings' cosine."""

from __future__ import annotations

import math
from collections import Counter

from forebay.cache.alignment import Alignment
from forebay.cache.analysis import Analysis, Token
from forebay.cache.lexicon import english, word_set

NAMES = (
    "cosine",  # of the two match forms' unit vectors
    "cosine_above_80", "cosine_above_90", "cosine_above_95",  # what it has over that: close paraphrases lie there
    "replaced_any", "replaced",  # content words left over on both sides: one stands in the other's place
    "added_any", "added",  # content words left over on one side alone
    "light_added",  # light words left over, on either side
    "coverage",  # share of the content that is matched, on the side where it is less
    "matched",  # log(1 + matched words)
    "typos", "synonyms", "derived", "related",  # matches by kind
    "function_changed",  # small words on one side alone
    "weighty_changed",  # those of them that may change the sense: `over`, `during`, `out`
    "person_changed",  # `my` against `your`
    "tense_changed",  # one asks about the past
    "asks_differ",  # both name a kind of question, and not the same one
    "asks_missing_hard",  # one names a kind more, with an answer of its own, and there is no noun for it (`reason`)
    "asks_missing",  # one names a kind more
    "order",  # places where the order turns, beyond one phrase moved to the front
    "governors_changed",  # matched words under another preposition
    "same_words",  # nothing but manners differs
    "nothing_left",  # every word has its counterpart, in order, of the same kind of question and tense
    "length_ratio",  # log of the longer over the shorter, in content words
    "replaced_far", "added_far",  # these times what the cosine lacks
)  # fmt: skip
NOTHING_LEFT = NAMES.index("nothing_left")
_PERSONS = word_set("i me my mine we us our you your yours he his she her they their them it its")
_PAST = frozenset({"was", "were", "did", "had", "has"})
# What asks for the same in other words: `how many people live in` and `what is the population of`.
_ASK_NOUNS = {
    ask: word_set(nouns)
    for ask, nouns in {
        "@why": "reason cause causes make",
        "@when": "date day time month year deadline hour",
        "@who": "name author person winner inventor",
        "@where": "address location place city country site",
        "@count": "number population inhabitant limit maximum total allowance",
        "@often": "frequency schedule",
        "@duration": "time length duration turnaround period last",
        "@price": "cost price fee charge rate pay expensive cheap",
        "@amount": "amount number allowance limit maximum level rate dose",
        "@difference": "differ compare",
        "@meaning": "mean explain definition",
        "@manner": "explain principle",
        "@must": "required necessary mandatory",
    }.items()
}
_DIRECTED = word_set("from before after between over under without against during about near across off behind")
# They take each other's place: the ingredients `of` a cake and `in` it.
_LOOSE = word_set("of in on at for")
_MODALS = {
    "can": "can",
    "could": "can",
    "may": "can",
    "should": "should",
    "must": "must",
    "will": "will",
    "would": "will",
}


def features(first: Analysis, second: Analysis, alignment: Alignment, cosine: float) -> tuple[float, ...]:
    """In the order of `NAMES`; symmetric in the two messages."""
    ours, theirs = _heavy(alignment.only_first), _heavy(alignment.only_second)
    replaced, added = min(ours, theirs), abs(ours - theirs)
    light = len(alignment.only_first) + len(alignment.only_second) - ours - theirs
    kinds = Counter(match.kind for match in alignment.matches)
    matched = len(alignment.matches)
    longest = max(len(first.content), len(second.content), 1)
    function = Counter(first.function)
    function.subtract(second.function)
    persons = {word for word, count in function.items() if count and word in _PERSONS}
    missing = _missing_asks(first, second)
    far = 1.0 - cosine
    leftover = replaced + added + light + kinds["related"]
    weighty = min(sum(abs(count) for word, count in function.items() if word in english().weighty), 3)
    tense = float(any(word in _PAST for word in first.function) != any(word in _PAST for word in second.function))
    asks = float(first.main_ask != second.main_ask and bool(first.main_ask) and bool(second.main_ask))
    turns = _turns(first, second, alignment)
    governors = _governors_changed(first, second, alignment)
    modals = _modals_changed(first, second)
    return (
        cosine,
        max(0.0, cosine - 0.8),
        max(0.0, cosine - 0.9),
        max(0.0, cosine - 0.95),
        float(replaced > 0),
        min(replaced, 4),
        float(added > 0),
        min(added, 4),
        min(light, 4),
        (matched + 0.5 * light + 0.5) / (longest + 0.5 * light + 0.5),
        math.log1p(matched),
        kinds["typo"] + kinds["joined"],
        kinds["synonym"],
        kinds["derived"],
        kinds["related"],
        min(sum(abs(count) for count in function.values()), 8),
        weighty,
        min(len(persons), 3),
        tense,
        asks,
        float(any(_ASK_NOUNS[ask].isdisjoint(_lemmas(first) | _lemmas(second)) for ask in missing & _ASK_NOUNS.keys())),
        float(bool(missing)),
        turns,
        governors,
        float(first.words == second.words),
        float(not (leftover or weighty or tense or turns or missing or asks or governors or modals)),
        abs(math.log((len(first.content) + 1) / (len(second.content) + 1))),
        replaced * far,
        added * far,
    )


def _missing_asks(first: Analysis, second: Analysis) -> frozenset[str]:
    """Kinds that one names and the other does not, where the other names no kind instead."""
    ours, theirs = first.asks - second.asks, second.asks - first.asks
    return frozenset() if ours and theirs else ours | theirs


def _lemmas(analysis: Analysis) -> set[str]:
    return {token.lemma for token in analysis.content}


def _heavy(tokens: tuple[Token, ...]) -> int:
    return sum(not token.is_light for token in tokens)


def _turns(first: Analysis, second: Analysis, alignment: Alignment) -> int:
    """How often the order of the matches turns back; a phrase moved with its preposition is no turn."""
    places = [match.second for match in alignment.matches]
    turns = [at for at in range(1, len(places)) if places[at] < places[at - 1]]
    if len(turns) == 1 and places[turns[0] :] + places[: turns[0]] == sorted(places):
        head, tail = alignment.matches[: turns[0]], alignment.matches[turns[0] :]
        if any(
            all(first.content[match.first].governor and second.content[match.second].governor for match in block)
            for block in (head, tail)
        ):
            return 0
    return len(turns)


def _governors_changed(first: Analysis, second: Analysis, alignment: Alignment) -> int:
    """Matched words under another preposition: `from` against none, `by` against `at`, not `in` against `for`."""
    pairs = [
        {first.content[match.first].governor, second.content[match.second].governor} for match in alignment.matches
    ]
    return sum(len(pair) == 2 and not pair <= _LOOSE and bool("" not in pair or pair & _DIRECTED) for pair in pairs)


def _modals_changed(first: Analysis, second: Analysis) -> bool:
    """`should` against `can`: one's modal is not the other's, and both have one."""
    ours, theirs = ({_MODALS[word] for word in each.function if word in _MODALS} for each in (first, second))
    return bool(ours - theirs) and bool(theirs - ours)
