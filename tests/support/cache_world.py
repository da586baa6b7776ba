"""The texts of the generated stream: questions of families that are easily confused, each worded in many ways."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

QUESTIONS = Path(__file__).parents[2] / "benchmarks" / "cache_stream" / "questions.txt"

_LEADS = [
    "Hi, {}",
    "Hello! {}",
    "Hey, {}",
    "Quick question: {}",
    "Can you tell me: {}",
    "Excuse me, {}",
    "One more: {}",
    "Good evening, {}",
    "Dear all, {}",
    "Sorry, {}",
    "I'd like to ask: {}",
    "Now then, {}",
]
_TAILS = [
    "{} Thanks!",
    "{} Thank you",
    "{} please",
    "{} Any help is welcome.",
    "{} Cheers",
    "{} Regards",
    "{} Thx a lot",
    "{} ???",
]
_VARIANTS = 30


@dataclass(frozen=True, slots=True)
class World:
    """`questions[i]` is the number of the question that `texts[i]` asks; its family is `families[questions[i]]`.

    `nearest[i]`: the texts that are most alike to it, most alike first.
    """

    texts: tuple[str, ...]
    questions: tuple[int, ...]
    families: tuple[int, ...]
    nearest: Sequence[Sequence[int]] = ()

    @property
    def num_questions(self) -> int:
        return len(self.families)

    def with_nearest(self, nearest: Sequence[Sequence[int]]) -> World:
        return replace(self, nearest=nearest)


def read_world(seed: int = 0, every: int = 1) -> World:
    """Every text once. `every`: take each so-manieth line alone, for a smaller world."""
    rng = random.Random(seed)
    lines = [line for line in QUESTIONS.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    slots = dict(line.split(" = ", 1) for line in lines if " = " in line)
    families = [line for line in lines if " = " not in line]
    known: set[str] = set()
    texts: list[str] = []
    questions: list[int] = []
    family_of: list[int] = []
    for family, line in enumerate(families[::every]):
        for wordings in _questions(line, slots):
            for text in itertools.chain(wordings, (_varied(rng, rng.choice(wordings)) for _ in range(_VARIANTS))):
                if text not in known:
                    known.add(text)
                    texts.append(text)
                    questions.append(len(family_of))
            family_of.append(family)
    return World(tuple(texts), tuple(questions), tuple(family_of))


def _questions(line: str, slots: dict[str, str]) -> list[list[str]]:
    """The wordings of each question of a family."""
    names = sorted(set(re.findall(r"{(\w+)}", line)))
    fillings = [
        dict(zip(names, chosen, strict=True))
        for chosen in itertools.product(*(slots[name].split(", ") for name in names))
    ]
    return [
        [_capital(wording.strip().format(**filling)) for wording in question.split(" | ")]
        for question in line.split(" // ")
        for filling in fillings
    ]


def _varied(rng: random.Random, text: str) -> str:
    """The same said with manners, without care, with slips of the finger, or all of it."""
    if rng.random() < 0.4:
        text = _mistyped(rng, text)
    if rng.random() < 0.4:
        text = text.lower().rstrip("?")
    if rng.random() < 0.4:
        text = rng.choice(_LEADS).format(text if text[:2] == "I " else text[0].lower() + text[1:])
    return rng.choice(_TAILS).format(text) if rng.random() < 0.4 else text


def _mistyped(rng: random.Random, text: str) -> str:
    """A letter of a longer word left out or doubled."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if word.isalpha() and word.islower() and len(word) > 4]
    if long:
        at = rng.choice(long)
        place = rng.randrange(1, len(words[at]) - 1)
        words[at] = words[at][:place] + rng.choice(("", 2 * words[at][place])) + words[at][place + 1 :]
    return " ".join(words)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
