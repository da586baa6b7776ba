"""Write pairs.jsonl: question pairs made from groups.txt, templates.txt and slots.txt, every kind of trap and of repeat.

    python benchmarks/cache_pairs/generate.py

A row is `{"group", "kind", "a", "b", "same_answer"}`; rows of one group are about one question and belong in one fold.
The seed is fixed: the same inputs give the same file. All text is ours.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

from forebay.cache.spelling import is_known

HERE = Path(__file__).parent
SEED = 20261121

LEADS = (
    "Hi, {}|Hello, {}|Hey {}|Good morning, {}|Hi there! {}|Excuse me, {}|Quick question: {}|Sorry to bother you, but {}|um {}|uh so {}|"
    "so {}|ok so {}|yeah {}|well {}|Can you tell me {}|Could you please tell me {}|Do you know {}|I was wondering, {}|I'd like to know: {}|"
    "Just wondering, {}|Evening! {}|Dear team, {}|Hope you're well. {}|Sorry, dumb question, but {}|Got a sec? {}|Random one: {}|"
    "hi guys, {}|Another thing: {}|Me again. {}|I need some help: {}|Not sure if this is the right place, but {}|please, {}"
).split("|")
TAILS = "{} please|{}, please|{} Thanks!|{} Thank you.|{} Cheers|{}, thanks in advance|{} Any ideas?|{} thx|{} Many thanks|{} by the way".split("|")
INSIDE = ("um", "uh", "please", "er", "actually", "basically")
MILD = ("usually", "normally", "actually", "currently", "generally", "typically", "really")
CONSTRAINTS = (
    "on weekends|for children|without an account|in Germany|before midnight|if I'm over 65|in bulk|on a bank holiday|for a second home|"
    "by phone|without a password|as a guest|from abroad|for two people|in winter|at night|with a prepaid card|"
    "for my mother|for business use|if I live in Wales|on a Mac|under 18|with a foreign passport|after a divorce|as a company"
).split("|")
# Where a condition more asks for another answer; what the Nile is long it is on weekends, too.
CONSTRAINED = {"support", "travel", "finance", "law and work"}
# Words that a slip of the finger does not explain: each pair exists.
LOOKALIKES = (
    "dessert desert|hotel hostel|lease leash|adapt adopt|affect effect|accept except|loan lawn|stationery station|principal principle|advice device|"
    "patent patient|contract contact|personal personnel|prescription subscription|form farm|tax taxi|bank bunk|flight fight|rental dental|"
    "insurance assurance|custom costume|receipt recipe|discount account|angel angle|trail trial|quiet quite|corps corpse|moral morale"
).split("|")
FRAMES = (
    "How do I get a {}?|What is the cost of a {}?|Where can I find information about my {}?|Do you have a {}?|How do I change my {}?|"
    "Can I cancel the {}?|What should I know about a {}?"
).split("|")
CONTRACTIONS = {
    "What is ": "What's ", "Where is ": "Where's ", "Who is ": "Who's ", "When is ": "When's ", "I am ": "I'm ", "cannot ": "can't ",
    "do not ": "don't ", "does not ": "doesn't ", "is not ": "isn't ", "I have ": "I've ", "How is ": "How's ",
}  # fmt: skip
SWAPS = {
    "How do I ": ("How can I ", "How could I ", "how to ", "What's the best way to ", "Could you tell me how to "),
    "Can I ": ("Could I ", "Am I able to ", "Is it possible to ", "May I "),
    "How often should I ": ("How frequently should I ", "How regularly should I "),
    "What's ": ("What is ", "Tell me "), "Do I need ": ("Do I require ",), "How long does ": ("How much time does ",),
    " buy ": (" purchase ",), " get ": (" obtain ",), " change ": (" update ", " modify "), " cancel ": (" terminate ",),
    " book ": (" reserve ",), " delete ": (" remove ", " erase "), " fix ": (" repair ", " mend "), " begin ": (" start ",),
    " send ": (" submit ",), " big ": (" large ",), " car ": (" vehicle ",), " phone ": (" mobile ",), " help ": (" assist ",),
    " price ": (" cost ",), " show ": (" display ",), " allowed ": (" permitted ",), " create ": (" make ",), " parcel ": (" package ",),
}  # fmt: skip


def rows(rng: random.Random) -> Iterator[dict[str, object]]:
    for group, (section, question, same, other) in enumerate(_groups()):
        name = f"g{group}"
        for first, second in combinations([question, *same], 2):
            yield _row(name, "paraphrase", first, second, True)
        for trap in other:
            for text in [question, *rng.sample(same, min(2, len(same)))]:
                yield _row(name, "near_miss", text, trap, False)
        for text in [question, *same, *other]:
            yield from _repeats(rng, name, text)
            yield from _traps(rng, name, text, section)
    yield from _templated(rng)
    for number, pair in enumerate(LOOKALIKES):
        for frame in rng.sample(FRAMES, 3):
            yield _row(f"l{number}", "lookalike", *(frame.format(word) for word in pair.split()), False)


def _groups() -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(section, question, paraphrases, traps)."""
    section = ""
    for line in (HERE / "groups.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
            continue
        question, *rest = (part.strip() for part in re.split(r"\s(?=[+-]\s)", line))
        yield section, question, [part[2:] for part in rest if part[0] == "+"], [part[2:] for part in rest if part[0] == "-"]


def _repeats(rng: random.Random, group: str, text: str) -> Iterator[dict[str, object]]:
    """The same question said again; more than one manner at a time now and then."""
    makers: list[tuple[str, Callable[[random.Random, str], str | None]]] = [
        ("typo", _mistype), ("manners", _lead), ("manners", _tail), ("filler", _fill), ("case", _recase), ("contraction", _contract),
        ("fronting", _front), ("wording", _reword), ("mild", _soften),
    ]  # fmt: skip
    for kind, maker in rng.sample(makers, 3):
        changed = maker(rng, text)
        if changed is not None and changed != text:
            if rng.random() < 0.25:
                changed = _mistype(rng, changed) or changed
            yield _row(group, kind, text, changed, True)


def _traps(rng: random.Random, group: str, text: str, section: str) -> Iterator[dict[str, object]]:
    kind = rng.choice(("constraint", "constraint", "polarity", "tense", "none", "none"))
    if kind == "tense":
        for old, new in (("Is ", "Was "), ("Are ", "Were "), ("Does ", "Did "), (" does ", " did ")):
            if old in text:
                yield _row(group, "tense", text, text.replace(old, new, 1), False)
                break
    if kind == "constraint" and section in CONSTRAINED:
        yield _row(group, "constraint", text, f"{text.rstrip('?')} {rng.choice(CONSTRAINTS)}?", False)
    if kind == "polarity":
        for old, new in (("Can I ", "Can't I avoid having to "), ("Is ", "Why isn't "), ("How do I ", "How do I avoid having to "),
                         ("What ", "What if not: what "), ("Do I ", "Don't I "), ("Should I ", "Should I stop trying to ")):  # fmt: skip
            if text.startswith(old) and old != "Do I ":
                yield _row(group, "polarity", text, text.replace(old, new, 1), False)


def _templated(rng: random.Random) -> Iterator[dict[str, object]]:
    slots = {name: values.split(" | ") for name, values in (line.split(": ", 1) for line in _lines("slots.txt"))}
    for number, line in enumerate(_lines("templates.txt")):
        phrasings = line.split(" | ")
        names = sorted(set(re.findall(r"{(\w+)}", line)))
        for _ in range(14):
            filling = {name: rng.choice(slots[name]) for name in names}
            chosen = {name: rng.choice(value.split(" / ")) for name, value in filling.items()}
            first, second = rng.sample(phrasings, 2) if rng.random() < 0.5 else [rng.choice(phrasings)] * 2
            changed = rng.choice(names)
            others = [value for value in filling[changed].split(" / ") if value != chosen[changed]] or [
                rng.choice([value for value in slots[changed] if value != filling[changed]]).split(" / ")[0]
            ]
            trap = chosen | {changed: others[0]}
            yield _row(f"t{number}", f"slot_{changed}", _filled(first, chosen), _filled(second, trap), False)
            if first != second:
                yield _row(f"t{number}", "paraphrase", _filled(first, chosen), _filled(second, chosen), True)
            else:
                yield from list(_repeats(rng, f"t{number}", _filled(first, chosen)))[:1]
            for name in names:  # roles that change places
                if f"{name}2" in names and rng.random() < 0.6:
                    swapped = chosen | {name: chosen[f"{name}2"], f"{name}2": chosen[name]}
                    if not re.search(r"between|distance|how far|together|with", first + second, re.IGNORECASE):
                        yield _row(f"t{number}", "role_swap", _filled(first, chosen), _filled(second, swapped), False)


def _filled(phrasing: str, filling: dict[str, str]) -> str:
    text = phrasing.format(**filling)
    return text[0].upper() + text[1:]


def _row(group: str, kind: str, first: str, second: str, is_same: bool) -> dict[str, object]:
    return {"group": group, "kind": kind, "a": first, "b": second, "same_answer": is_same}


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
    return rng.choice((text.upper(), text.lower(), text.rstrip("?"), text + "?", text.replace("?", "!?"), f"  {text} ", text.replace("?", "...")))


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
    match = re.fullmatch(r"(.{12,}?) ((?:in|on|at|for|with|after|before|without|during) (?:the|my|a|an|two|Python|Java) ?\w*(?: \w+)?)\?", text)
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


def _lines(name: str) -> list[str]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


if __name__ == "__main__":
    seen: dict[tuple[object, object], dict[str, object]] = {}
    for row in rows(random.Random(SEED)):
        if row["a"] != row["b"]:
            seen.setdefault((row["a"], row["b"]), row)
    written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in seen.values())
    (HERE / "pairs.jsonl").write_text(written, encoding="utf-8")
