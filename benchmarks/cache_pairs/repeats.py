"""The same question said again: manners, fillers, slips of the finger, other cases, other order, other words."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from forebay.cache.spelling import is_known

LEADS = (
    "Hi, {}", "Hello, {}", "Hey {}", "Good morning, {}", "Hi there! {}", "Excuse me, {}", "Quick question: {}",
    "Sorry to bother you, but {}", "um {}", "uh so {}", "so {}", "ok so {}", "yeah {}", "well {}",
    "Can you tell me {}", "Could you please tell me {}", "Do you know {}", "I was wondering, {}",
    "I'd like to know: {}", "Just wondering, {}", "Evening! {}", "Dear team, {}", "Hope you're well. {}",
    "Sorry, dumb question, but {}", "Got a sec? {}", "Random one: {}", "hi guys, {}", "Another thing: {}",
    "Me again. {}", "I need some help: {}", "Not sure if this is the right place, but {}", "please, {}",
)  # fmt: skip
TAILS = (
    "{} please", "{}, please", "{} Thanks!", "{} Thank you.", "{} Cheers", "{}, thanks in advance", "{} Any ideas?",
    "{} thx", "{} Many thanks", "{} by the way",
)  # fmt: skip
INSIDE = (
    "um", "uh", "please", "er", "actually", "basically",
)  # fmt: skip
MILD = (
    "usually", "normally", "actually", "currently", "generally", "typically", "really",
)  # fmt: skip
CONTRACTIONS = {
    "What is ": "What's ",
    "Where is ": "Where's ",
    "Who is ": "Who's ",
    "When is ": "When's ",
    "I am ": "I'm ",
    "cannot ": "can't ",
    "do not ": "don't ",
    "does not ": "doesn't ",
    "is not ": "isn't ",
    "I have ": "I've ",
    "How is ": "How's ",
}
SWAPS = {
    "How do I ": ("How can I ", "How could I ", "how to ", "What's the best way to ", "Could you tell me how to "),
    "Can I ": ("Could I ", "Am I able to ", "Is it possible to ", "May I "),
    "How often should I ": ("How frequently should I ", "How regularly should I "),
    "What's ": ("What is ", "Tell me "),
    "Do I need ": ("Do I require ",),
    "How long does ": ("How much time does ",),
    " buy ": (" purchase ",),
    " get ": (" obtain ",),
    " change ": (" update ", " modify "),
    " cancel ": (" terminate ",),
    " book ": (" reserve ",),
    " delete ": (" remove ", " erase "),
    " fix ": (" repair ", " mend "),
    " begin ": (" start ",),
    " send ": (" submit ",),
    " big ": (" large ",),
    " car ": (" vehicle ",),
    " phone ": (" mobile ",),
    " help ": (" assist ",),
    " price ": (" cost ",),
    " show ": (" display ",),
    " allowed ": (" permitted ",),
    " create ": (" make ",),
    " parcel ": (" package ",),
}


def repeats(rng: random.Random, text: str) -> Iterator[tuple[str, str]]:
    """(kind, the text changed) for up to three kinds; now and then with a slip on top."""
    makers: list[tuple[str, Callable[[random.Random, str], str | None]]] = [
        ("typo", _mistype), ("manners", _lead), ("manners", _tail), ("filler", _fill), ("case", _recase),
        ("contraction", _contract),
        ("fronting", _front), ("wording", _reword), ("mild", _soften),
    ]  # fmt: skip
    for kind, maker in rng.sample(makers, 3):
        changed = maker(rng, text)
        if changed is not None and changed != text:
            if rng.random() < 0.25:
                changed = _mistype(rng, changed) or changed
            yield kind, changed


def _lower(text: str) -> str:
    return text if text[:2] in {"I ", "I'"} or text.split(" ")[0].isupper() else text[0].lower() + text[1:]


def _lead(rng: random.Random, text: str) -> str:
    return rng.choice(LEADS).format(_lower(text))


def _tail(rng: random.Random, text: str) -> str:
    tail = rng.choice(TAILS)
    return tail.format(text.rstrip("?") if tail[2] in " ," and tail[3:4].islower() else text)


def _fill(rng: random.Random, text: str) -> str | None:
    words = text.lower().rstrip("?").split()
    if len(words) < 4:
        return None
    words.insert(rng.randrange(1, len(words)), rng.choice(INSIDE))
    return " ".join(words)


def _recase(rng: random.Random, text: str) -> str:
    return rng.choice(
        (
            text.upper(),
            text.lower(),
            text.rstrip("?"),
            text + "?",
            text.replace("?", "!?"),
            f"  {text} ",
            text.replace("?", "..."),
        )
    )


def _contract(_: random.Random, text: str) -> str | None:
    for long, short in CONTRACTIONS.items():
        if long in text:
            return text.replace(long, short)
        if short in text:
            return text.replace(short, long)
        if "'" in text:
            return text.replace("'", "")
    return None


def _front(_: random.Random, text: str) -> str | None:
    """`How do I … in the app?` as `In the app, how do I …?`."""
    match = re.fullmatch(
        r"(.{12,}?) ((?:in|on|at|for|with|after|before|without|during) (?:the|my|an?|two|Python|Java) ?\w*(?: \w+)?)\?",
        text,
    )
    return None if match is None else f"{match[2][0].upper()}{match[2][1:]}, {_lower(match[1])}?"


def _reword(rng: random.Random, text: str) -> str | None:
    usable = [(old, new) for old, news in SWAPS.items() if old in text for new in news]
    if not usable:
        return None
    old, new = rng.choice(usable)
    changed = text.replace(old, new, 1)
    return changed.replace("?", ".") if new == "Tell me " else changed[0].upper() + changed[1:]


def _soften(rng: random.Random, text: str) -> str | None:
    match = re.match(r"((?:How|When|Where|What) (?:do|does|should|can|is|are) (?:I|you|it|the|my)?) ", text)
    return None if match is None else f"{match[1]} {rng.choice(MILD)} {text[match.end() :]}"


def _mistype(rng: random.Random, text: str) -> str | None:
    """One or two slips in longer words: a letter dropped, doubled, swapped with its neighbour, or changed."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if word.isalpha() and word.islower() and len(word) >= 5]
    if not places:
        return None
    for at in rng.sample(places, min(len(places), rng.choice((1, 1, 2)))):
        word = words[at]
        place = rng.randrange(1, len(word) - 1)
        slipped = rng.choice((
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
            word[:place] + word[place + 1] + word[place] + word[place + 2 :],
            word[:place] + rng.choice("aeiourstln") + word[place + 1 :],
        ))  # fmt: skip
        if not is_known(slipped):  # a slip that makes another word is another question
            words[at] = slipped
    return " ".join(words)
