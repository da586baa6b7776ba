"""A message's words: contractions taken apart, slips in small words put right, manners gone, phrases replaced."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from forebay.cache.lexicon import Phrase, english, word_set
from forebay.cache.normal_form import normalised
from forebay.cache.quantities import spread_currency
from forebay.cache.spelling import with_small_words_corrected

MAX_PUT_RIGHT = 60
"""Words of a message in which slips are looked for, the first: an unknown word takes some 10 us."""

_CODE_BLOCK = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
_SUFFIXES = "py|js|ts|json|ya?ml|toml|csv|sql|sh|html|css|cpp|rs|go|java|txt|xml"
# Lengths are bounded: a run of dashes must not be read again from each of them.
_IDENTIFIER = re.compile(
    r"(?<!\w)(?:https?://\S+|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.]+|--?[a-z][\w-]{1,64}=?\S*|"
    r"\w{1,64}(?:\.\w{1,64}){0,8}\([^)\s]{0,64}\)|"
    r"[A-Za-z]\w{0,64}_\w+|[a-z]{1,64}[A-Z]\w*|[\w-]{1,64}(?:/[\w.-]{1,64}){2,}|"
    rf"\.?\w{{0,64}}[A-Za-z]\.(?:{_SUFFIXES}))(?!\w)"
)
_WORD = re.compile(r"\d[\d,.:]*\d[%°]?\w*|\d+[%°]?\w*|[^\W\d_]+(?:['’][^\W\d_]+)*['’]?|[^\w\s]")
_SAID_BEFORE = re.compile(
    r"^\s*(?:good\s+)?(?:morning|afternoon|evening|day|right|look|listen|help|thanks|thank you|cheers|now|again)"
    r"(?:\s+(?:all|everyone|everybody|team|folks|there|guys))?\s*[,!.;:–-]+\s*",
    re.IGNORECASE,
)
_PART = re.compile(r"(?<=[.!?:;,])\s+|\n+")
_HUMMED = re.compile(r"u+h*m+|u+h+|e+r+m*|h+m+|a+h+|o+h+")
# `could someone please explain …`, after which the question follows.
_REQUESTED = re.compile(
    r"(?:can|could|would|will) (?:you|someone|anyone|somebody|anybody) (?:(?:please|kindly|possibly|just|maybe|"
    r"be able to|be so kind as to) )*(?:tell|explain|advise|remind|clarify|let me know|help me understand)(?: to)?"
    r"(?: me| us)? (?=\w)"
)
_NEGATED = {
    "cant": "can", "wont": "will", "dont": "do", "doesnt": "does", "didnt": "did", "isnt": "is", "arent": "are",
    "wasnt": "was", "werent": "were", "shouldnt": "should", "wouldnt": "would", "couldnt": "could", "hasnt": "has",
    "havent": "have", "hadnt": "had", "mustnt": "must", "shant": "shall", "aint": "is", "neednt": "need",
}  # fmt: skip
_IS_AFTER = word_set("what where who how when why that it there here she he which")
_CONTRACTED = {"m": "am", "re": "are", "ve": "have", "ll": "will", "d": "would"}
_JOINED = {
    "im": "i am", "ive": "i have", "whats": "what is", "wheres": "where is", "hows": "how is", "whos": "who is",
    "whens": "when is", "theres": "there is", "gonna": "going to", "wanna": "want to", "cannot": "can not",
    "gimme": "give me", "lemme": "let me", "u": "you", "ur": "your", "r": "are", "thats": "that is", "youre": "you are",
}  # fmt: skip


def split_code(text: str) -> tuple[tuple[str, ...], str]:
    """(code spans, identifiers, addresses and flags, the text without them)."""
    code = tuple(match.group() for match in _CODE_BLOCK.finditer(text))
    rest = _CODE_BLOCK.sub(" ", text)
    return code + tuple(match.group() for match in _IDENTIFIER.finditer(rest)), _IDENTIFIER.sub(" ", rest)


def is_longer(text: str, num_characters: int, num_tokens: int) -> bool:
    """Whether it has more characters (a ligature of Unicode may stand for eighteen) or more words and signs."""
    if len(text) > num_characters:
        return True
    text = normalised("NFKC", text)
    return len(text) > num_characters or sum(1 for _ in islice(_WORD.finditer(text), num_tokens + 1)) > num_tokens


def split_words(text: str) -> list[tuple[str, bool]]:
    """(lower-case word, whether it is written as a name), contractions taken apart, punctuation gone."""
    text = normalised("NFKC", text).replace("’", "'").replace("‘", "'")
    text = spread_currency(_without_address(_SAID_BEFORE.sub("", text)))
    letters = [character for character in text if character.isalpha()]
    is_shouted = sum(character.isupper() for character in letters) > 0.6 * len(letters)
    found: list[tuple[str, bool]] = []
    starts_sentence = True
    for match in _WORD.finditer(text):
        word = match.group()
        if not word[0].isalnum():
            starts_sentence = word in ".!?:" or (starts_sentence and word in "\"'(")
            before = text[match.start() - 1]
            if word in "+#" and found and (before.isalnum() or before in "+#"):
                found[-1] = (found[-1][0] + word, True)
            elif word in "&%":
                found.append(("and" if word == "&" else word, False))
            continue
        is_name = word[0].isupper() and not is_shouted and not (starts_sentence and not word[1:2].isupper())
        parts = _expanded(word.lower())
        is_kept = is_name or len(found) >= MAX_PUT_RIGHT
        found.extend((part if is_kept else with_small_words_corrected(part), is_name and part != "i") for part in parts)
        starts_sentence = False
    return found


def _without_address(text: str) -> str:
    """The text without the parts that hold nothing but manners: `Apologies if this was asked before.`"""
    parts = _PART.split(text)
    if len(parts) == 1:
        return text
    return " ".join(part for part in parts if not _is_manners(part)) or text


def _is_manners(part: str) -> bool:
    lexicon = english()
    words = [form for word in _WORD.findall(part) if word[0].isalnum() for form in _expanded(word.lower())]
    if not all(word in lexicon.social or word in lexicon.function for word in words):
        return False
    if any(word in lexicon.social and word not in lexicon.function for word in words):
        return not any(word in lexicon.negators for word in words)
    return part.rstrip().endswith((",", ":")) and not any(
        word in lexicon.decisive or word in lexicon.weighty or word in lexicon.negators for word in words
    )


def _expanded(word: str) -> Iterator[str]:
    """A word's parts: `don't` is `do not`, `what's` `what is`, `child's` `child`."""
    if word in _NEGATED:
        yield from (_NEGATED[word], "not")
    elif word in _JOINED:
        yield from _JOINED[word].split()
    elif word.endswith("n't"):
        yield from (_NEGATED.get(word.replace("'", ""), word[:-3]), "not")
    elif "'" in word.rstrip("'"):
        stem, _, ending = word.rstrip("'").rpartition("'")
        yield stem
        if ending == "s" and stem in _IS_AFTER:
            yield "is"
        elif ending in _CONTRACTED:
            yield _CONTRACTED[ending]
        elif ending != "s":
            yield ending
    else:
        yield word.rstrip("'")


def without_manners(words: list[str]) -> list[str]:
    """The words without what is said around the question; all of them where nothing else is left."""
    lexicon = english()
    kept = [word for word in words if (word,) not in lexicon.fillers and not _HUMMED.fullmatch(word)]
    asked = " ".join(kept[:16])
    if (requested := _REQUESTED.match(asked)) is not None:
        kept = kept[len(requested.group().split()) :]
    start, end = 0, len(kept)
    while (length := _phrase_at(kept, start, end, lexicon.openings)) is not None:
        start += length
    while (length := _phrase_before(kept, start, end, lexicon.closings)) is not None:
        end -= length
    return kept[start:end] or words


def _phrase_at(words: list[str], start: int, end: int, phrases: frozenset[Phrase]) -> int | None:
    lengths = range(min(9, end - start - 1), 0, -1)
    return next((length for length in lengths if tuple(words[start : start + length]) in phrases), None)


def _phrase_before(words: list[str], start: int, end: int, phrases: frozenset[Phrase]) -> int | None:
    lengths = range(min(9, end - start - 1), 0, -1)
    return next((length for length in lengths if tuple(words[end - length : end]) in phrases), None)


def with_phrases_replaced(words: list[str]) -> list[str]:
    """Phrases as the words that stand for them, the longest first."""
    lexicon = english()
    found: list[str] = []
    at = 0
    while at < len(words):
        for length in range(min(lexicon.longest.get(words[at], 0), len(words) - at), 0, -1):
            meaning = lexicon.phrases.get(tuple(words[at : at + length]))
            if meaning is not None:
                found.extend(meaning)
                at += length
                break
        else:
            found.append(words[at])
            at += 1
    return found
