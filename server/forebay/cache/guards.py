"""What must agree before two messages may be thought to ask the same: each guard knows one way to be wrong.

A guard refuses for good: no score outweighs it. It sees what alignment has left over, so that it costs little and can
say in words what it found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from forebay.cache.alignment import Alignment, opposites_between
from forebay.cache.analysis import MAX_WORDS, Analysis, Token
from forebay.cache.lexicon import english, word_set
from forebay.cache.quantities import unmatched


@dataclass(frozen=True, slots=True)
class Refusal:
    """`guard` is the guard's name; `reason` quotes the messages: for `explain`, never for a log."""

    guard: str
    reason: str


def refusal(first: Analysis, second: Analysis, alignment: Alignment) -> Refusal | None:
    """The first guard that refuses the pair, None where all let it pass. Symmetric in the two messages."""
    for name, guard in GUARDS:
        reason = guard(first, second, alignment)
        if reason is not None:
            return Refusal(name, reason)
    return None


def _length(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    if max(first.num_words, second.num_words) > MAX_WORDS and first.words != second.words:
        return f"more than {MAX_WORDS} words"
    return None


def _content(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    """`yes`, `go on`, `and then?`: where a message has no word of substance, only the same words are the same."""
    is_empty = any(not each.content and not each.quantities and not each.code for each in (first, second))
    return "no word of substance" if is_empty and first.words != second.words else None


def _language(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    if first.is_english != second.is_english:
        return "one is in English, the other is not"
    if not first.is_english and first.words != second.words:
        return "not in English, whose words the guards know"
    return None


def _code(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    return None if sorted(first.code) == sorted(second.code) else _versus(first.code, second.code)


def _quantities(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    """Amounts agree in one unit (`two weeks`, `14 days`) or, where one has none (`18`, `18-year-old`), in number."""
    ours, theirs = unmatched(first.quantities, second.quantities)
    return _versus([str(each) for each in ours], [str(each) for each in theirs]) if ours or theirs else None


def _negation(first: Analysis, second: Analysis, alignment: Alignment) -> str | None:
    """An odd number of negations more, or a word on one side alone that turns the question round."""
    if first.num_negators % 2 != second.num_negators % 2:
        return f"{first.num_negators} against {second.num_negators} negations"
    reversers = english().reversers
    ours, theirs = (
        [token.word for token in tokens if token.lemma in reversers or token.word in reversers]
        for tokens in (alignment.only_first, alignment.only_second)
    )
    return _versus(ours, theirs) if bool(ours) != bool(theirs) else None


def _opposites(first: Analysis, second: Analysis, alignment: Alignment) -> str | None:
    """Among the words left over; the small ones (`before`, `after`) count by how often they occur."""
    ours = {form for token in alignment.only_first for form in (token.lemma, token.word)}
    theirs = {form for token in alignment.only_second for form in (token.lemma, token.word)}
    ours |= set(Counter(first.function) - Counter(second.function)) - _WEAK
    theirs |= set(Counter(second.function) - Counter(first.function)) - _WEAK
    found = opposites_between(ours, theirs)
    return None if found is None else f"{found[0]} against {found[1]}"


# Prepositions of many senses: `in the morning`, `on Monday` and `at night` set nothing against each other.
_WEAK = word_set("in on at to for of with by as do come go not no so")


def _names(first: Analysis, second: Analysis, alignment: Alignment) -> str | None:
    ours = [token.word for token in alignment.only_first if _is_name(token)]
    theirs = [token.word for token in alignment.only_second if _is_name(token)]
    return _versus(ours, theirs) if ours or theirs else None


def _is_name(token: Token) -> bool:
    return token.is_name or (token.lemma in _CALENDAR)


_CALENDAR = word_set(
    "monday tuesday wednesday thursday friday saturday sunday weekday weekend january february march april june "
    "july august september october november december today tomorrow yesterday tonight christmas easter spring "
    "summer autumn winter morning afternoon evening night midday noon midnight monthly weekly daily yearly hourly"
)


def _owners(first: Analysis, second: Analysis, alignment: Alignment) -> str | None:
    owners = english().owners
    ours = [token.lemma for token in alignment.only_first if token.lemma in owners]
    theirs = [token.lemma for token in alignment.only_second if token.lemma in owners]
    return _versus(ours, theirs) if ours or theirs else None


def _persons(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    """`can I call you` against `can you call me`; `my` in one and `your` in the other."""
    ours, theirs = set(first.persons), set(second.persons)
    is_exchanged = bool(ours - theirs) and bool(theirs - ours)
    is_turned = ours == theirs and len(ours) > 1 and first.persons[0] != second.persons[0]
    return _versus(first.persons, second.persons) if is_exchanged or is_turned else None


_TOWARDS = frozenset({"to", "into", "onto"})


def _roles(first: Analysis, second: Analysis, alignment: Alignment) -> str | None:
    """`from Oslo to Rome`, `from Rome to Oslo`: two words or quantities that take each other's place, or who acts."""
    if _exchanged_quantities(first, second):
        return _versus(*([f"{where} {amount}".lstrip() for where, amount in each.governed] for each in (first, second)))
    subjects = {first.subject, second.subject}
    if len(subjects) == 2 and "i" in subjects and "" not in subjects:
        return f"{first.subject} against {second.subject} as who acts"
    pairs = [(first.content[match.first], second.content[match.second]) for match in alignment.matches]
    moved = [(token, other) for token, other in pairs if token.governor != other.governor]
    for token, other in moved:
        governors = {token.governor, other.governor}
        if "from" in governors and governors & _TOWARDS:
            return f"{token.governor} {token.word} against {other.governor} {other.word}"
    by_move = {(token.governor, other.governor): token for token, other in reversed(moved)}
    for token, other in moved:
        if (another := by_move.get((other.governor, token.governor))) is not None:
            return f"{token.word} and {another.word} change places"
    movers = {token for token, _ in moved}
    named = [
        (match.second, token, token in movers)
        for match in alignment.matches
        if (token := first.content[match.first]).is_name
    ]
    if any(is_moved for _, _, is_moved in named):
        for (place, token, is_moved), (later, other, is_too) in combinations(named, 2):
            if place > later and (is_moved or is_too):
                return f"{token.word} and {other.word} change places"
    return None


def _exchanged_quantities(first: Analysis, second: Analysis) -> bool:
    """The same prepositions, before other quantities."""
    ours, theirs = sorted(first.governed), sorted(second.governed)
    if ours == theirs or min(len(set(ours)), len(set(theirs))) < 2:
        return False
    return [where for where, _ in ours] == [where for where, _ in theirs]


def _decisive(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    """`without`, `only`, `last` or another small word that changes the answer, on one side alone."""
    ours, theirs = Counter(first.decisive), Counter(second.decisive)
    return None if ours == theirs else _versus(list(ours - theirs), list(theirs - ours))


_FAMILIES = tuple(
    word_set(family)
    for family in (
        "@when @duration @often @age", "@where @how @manner @far", "@who @whose", "@how @can", "@can @exist",
        "@must @should", "@price @count @amount @size @height", "@difference @manner",
    )
)  # fmt: skip
_HARD = word_set(
    "@why @where @who @when @duration @often @price @count @amount @meaning @difference @must @age @far @size @height"
)


def _asks(first: Analysis, second: Analysis, _: Alignment) -> str | None:
    """`why` against `how`: kinds of question that no answer serves both of."""
    ours, theirs = first.main_ask, second.main_ask
    # `which country` is `who` or `where`; what the rest of the question names decides.
    if not ours or not theirs or ours == theirs or "@which" in (ours, theirs) or not _HARD & {ours, theirs}:
        return None
    return None if any({ours, theirs} <= family for family in _FAMILIES) else f"{ours} against {theirs}"


def _versus(ours: Sequence[str], theirs: Sequence[str]) -> str:
    return f"{', '.join(ours) or 'nothing'} against {', '.join(theirs) or 'nothing'}"


Guard = Callable[[Analysis, Analysis, Alignment], str | None]
GUARDS: tuple[tuple[str, Guard], ...] = (
    ("length", _length),
    ("content", _content),
    ("language", _language),
    ("code", _code),
    ("quantities", _quantities),
    ("negation", _negation),
    ("opposites", _opposites),
    ("names", _names),
    ("owners", _owners),
    ("persons", _persons),
    ("decisive", _decisive),
    ("roles", _roles),
    ("question", _asks),
)
