"""A message taken apart: what it asks, its content words in order, its quantities, its code.

Everything here looks at one text alone, and remembers none: how long it takes would tell one tenant what another one
has asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from forebay.cache.language import is_english
from forebay.cache.lemmas import lemma_of
from forebay.cache.lexicon import ASKED, ASKER, english, word_set
from forebay.cache.quantities import Quantity, read_quantity
from forebay.cache.spelling import corrected
from forebay.cache.words import is_longer, split_code, split_words, with_phrases_replaced, without_manners

MAX_WORDS = 120
# A longer message is compared whole, not word by word.
MAX_CHARACTERS = 2000
MAX_TOKENS = 2 * MAX_WORDS
"""Words and signs of a message that is taken apart; manners and phrases may leave half of them."""
MAX_CORRECTED_WORDS = 40


@dataclass(frozen=True, slots=True)
class Token:
    """`word` is what stands there in lower case, `lemma` what is compared; `governor` the preposition of its phrase.

    `is_light`: may come or go without much harm; `is_name`: written or known as a name, or not a known word at all.
    """

    word: str
    lemma: str
    is_light: bool
    is_name: bool
    is_known: bool
    governor: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """`words` is what was said without the manners, phrases replaced; `content` and `function` share out its words.

    `asks` are kinds of question (`@how`), `main_ask` is the first; `subject` is who acts, where that can be told;
    `persons` are the grammatical persons in order, one after the other at once counted once;
    `governed` are the quantities with the preposition before each; `decisive` the small words that change an answer.
    """

    words: tuple[str, ...]
    content: tuple[Token, ...]
    function: tuple[str, ...]
    asks: frozenset[str]
    main_ask: str
    subject: str
    persons: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    governed: tuple[tuple[str, str], ...]
    code: tuple[str, ...]
    decisive: tuple[str, ...]
    num_negators: int
    num_words: int
    is_english: bool


def analyse(text: str) -> Analysis:
    """Takes about 0.1 ms for a short text, and some milliseconds for any. Never fails, whatever the text."""
    if is_longer(text, MAX_CHARACTERS, MAX_TOKENS):
        return _unread(text)
    code, rest = split_code(text)
    words = split_words(rest)
    plain = [word for word, _ in words]
    if len(asked := with_phrases_replaced(without_manners(plain))) > MAX_WORDS:
        return _unread(text)
    return _read(asked, frozenset(word for word, is_name in words if is_name), code, is_english(plain))


def match_form(text: str) -> str:
    """The text as it is embedded: without manners and slips of the finger, which move a vector, but not an answer.

    The decision compares the words as they were written.
    """
    if is_longer(text, MAX_CHARACTERS, MAX_TOKENS) or split_code(text)[0]:
        return text
    words = without_manners([word for word, _ in split_words(text)])
    if len(words) <= MAX_CORRECTED_WORDS:
        words = [corrected(word) for word in words]
    return " ".join(words) or text


def _unread(text: str) -> Analysis:
    nothing: tuple[str, ...] = ()
    return Analysis(
        words=(text,), content=(), function=nothing, asks=frozenset(), main_ask="", subject="", persons=(),
        quantities=(), governed=(), code=nothing, decisive=nothing, num_negators=0,
        num_words=MAX_WORDS + 1, is_english=True,
    )  # fmt: skip


def _read(words: list[str], named: frozenset[str], code: tuple[str, ...], is_english: bool) -> Analysis:
    lexicon = english()
    words = _joined_particles(words)
    content: list[Token] = []
    quantities: list[tuple[str, Quantity]] = []
    function: list[str] = []
    asks: set[str] = set()
    governor = ""
    at = 0
    while at < len(words):
        word = words[at]
        if (quantity := read_quantity(words, at)) is not None:
            quantities.append((governor, quantity[0]))
            at += quantity[1]
            continue
        at += 1
        if word.startswith("@"):
            asks.update({word} - {ASKER, ASKED})
            governor = ""
        elif word in lexicon.function and not _is_content(words, at - 1, named):
            function.append(word)
            governor = _GOVERNORS.get(word, word) if word in _PREPOSITIONS else "" if word in _BREAKS else governor
        else:
            lemma = lemma_of(word)
            is_known = word in lexicon.known or lemma in lexicon.known
            is_light = lemma in lexicon.light and word not in named
            content.append(Token(word, lemma, is_light, word in named or not is_known, is_known, governor))
    content, asks = _priced(content, asks, "what" in function)
    if "@duration" in asks:  # `how long does it take` and `how long is` ask one thing
        content = [token for token in content if token.lemma != "take"]
    return Analysis(
        words=tuple(word for word in words if word not in {ASKER, ASKED}),
        content=tuple(content),
        function=tuple(function),
        asks=frozenset(asks),
        main_ask=next((word for word in words if word in asks), ""),
        subject=_subject(words),
        persons=_persons(words),
        quantities=tuple(sorted(amount for _, amount in quantities)),
        governed=tuple((before, str(amount)) for before, amount in quantities),
        code=code,
        decisive=tuple(sorted(word for word in function if word in lexicon.decisive)),
        num_negators=sum(word in lexicon.negators for word in words),
        num_words=len(words),
        is_english=is_english,
    )


def _is_content(words: list[str], at: int, named: frozenset[str]) -> bool:
    """The month of May, and `how long does it last`."""
    if words[at] == "last":
        return at + 1 == len(words) or words[at + 1] in _PREPOSITIONS
    return words[at] == "may" and "may" in named


_PREPOSITIONS = word_set(
    "from to into onto in on at for of with without before after between over under against by as about near across "
    "off through along beside behind"
)
_BREAKS = word_set("and or but if then when while because i you we they is are do does what which who")
_PERSONS = {
    word: person
    for person, words in (
        ("first", f"i me my mine we us our ours {ASKER}"), ("second", "you your yours"), ("he", "he him his"),
        ("she", "she her hers"),
        ("they", "they them their"),
    )
    for word in words.split()
}  # fmt: skip
_GOVERNORS = {"into": "to", "onto": "to"}
_FIRST_PERSON = frozenset({"i", "we", ASKER})


def _persons(words: list[str]) -> tuple[str, ...]:
    """`how do you` means anyone, unless the asker is mentioned beside."""
    is_spoken_to = any(_PERSONS.get(word) == "first" for word in words)
    persons = (_PERSONS.get(word) or ("second" if word == ASKED and is_spoken_to else "") for word in words)
    return tuple(person for person, _ in groupby(filter(None, persons)))


def _subject(words: list[str]) -> str:
    """`i`, or the relation who comes first: `my landlord` in `does my landlord have to …`."""
    owners = english().owners
    for word in words:
        if word in _FIRST_PERSON:
            return "i"
        if word in owners or lemma_of(word) in owners:
            return lemma_of(word)
    return ""


_PARTICLES = {
    ("turn", "on"): "enable", ("switch", "on"): "enable", ("turn", "off"): "disable", ("switch", "off"): "disable",
    ("set", "up"): "setup", ("back", "up"): "backup", ("take", "out"): "takeout", ("log", "in"): "login",
    ("sign", "up"): "signup", ("top", "up"): "topup", ("give", "back"): "return", ("send", "back"): "return",
    ("take", "back"): "return", ("roll", "back"): "rollback", ("call", "off"): "cancel", ("put", "off"): "postpone",
    ("fill", "in"): "complete", ("fill", "out"): "complete",
}  # fmt: skip


def _joined_particles(words: list[str]) -> list[str]:
    """`turn the lights off` is `disable the lights`: a particle up to four words after its verb."""
    for start, verb in enumerate(words):
        for at in range(start + 2, min(start + 6, len(words))):
            meaning = _PARTICLES.get((verb, words[at]))
            # A particle ends its phrase; a preposition goes on.
            if meaning is not None and (at + 1 == len(words) or words[at + 1] in _PREPOSITIONS | _BREAKS):
                return [*words[:start], meaning, *words[start + 1 : at], *words[at + 1 :]]
    return words


def _priced(content: list[Token], asks: set[str], has_what: bool) -> tuple[list[Token], set[str]]:
    """`what does it cost`, `what's the price of` and `how much is` ask one thing, and `cost` is no more content."""
    priced = [token for token in content if token.lemma in {"cost", "price"} and token.governor != "of"]
    if "@price" not in asks and not (priced and (asks == {"@amount"} or (has_what and not asks))):
        return content, asks
    return [token for token in content if token not in priced], asks - {"@amount"} | {"@price"}
