"""Write pairs.jsonl: question pairs made of groups, templates, slots and traps (the .txt files beside).

    python benchmarks/cache_pairs/generate.py

A row is `{"group", "kind", "a", "b", "same_answer"}`; rows of one group are about one question and belong in one fold.
The seed is fixed: the same inputs give the same file. All text is ours.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from itertools import combinations, islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "server")]

from cache_pairs.repeats import repeats  # noqa: E402 - after the path

SEED = 20261121

CONSTRAINTS = (
    "on weekends", "for children", "without an account", "in Germany", "before midnight", "if I'm over 65", "in bulk",
    "on a bank holiday", "for a second home", "by phone", "without a password", "as a guest", "from abroad",
    "for two people", "in winter", "at night", "with a prepaid card", "for my mother", "for business use",
    "if I live in Wales", "on a Mac", "under 18", "with a foreign passport", "after a divorce", "as a company",
)  # fmt: skip
# Where a condition more asks for another answer; what the Nile is long it is on weekends, too.
CONSTRAINED = {"support", "travel", "finance", "law and work"}
# Words that a slip of the finger does not explain: each pair exists.
LOOKALIKES = (
    "dessert desert", "hotel hostel", "lease leash", "adapt adopt", "affect effect", "accept except", "loan lawn",
    "stationery station", "principal principle", "advice device", "patent patient", "contract contact",
    "personal personnel", "prescription subscription", "form farm", "tax taxi", "bank bunk", "flight fight",
    "rental dental", "insurance assurance", "custom costume", "receipt recipe", "discount account", "angel angle",
    "trail trial", "quiet quite", "corps corpse", "moral morale",
)  # fmt: skip
FRAMES = (
    "How do I get a {}?", "What is the cost of a {}?", "Where can I find information about my {}?",
    "Do you have a {}?", "How do I change my {}?", "Can I cancel the {}?", "What should I know about a {}?",
)  # fmt: skip


def rows(rng: random.Random) -> Iterator[dict[str, object]]:
    for group, (section, question, same, other) in enumerate(_groups()):
        name = f"g{group}"
        for first, second in combinations([question, *same], 2):
            yield _row(name, "paraphrase", first, second, True)
        for trap in other:
            for text in [question, *rng.sample(same, min(2, len(same)))]:
                yield _row(name, "near_miss", text, trap, False)
        for text in [question, *same, *other]:
            yield from _repeated(rng, name, text)
            yield from _traps(rng, name, text, section)
    yield from _templated(rng)
    for number, line in enumerate(_lines("traps.txt")):
        first, second = line.split(" | ")
        yield _row(f"s{number}", "small_words", first, second, False)
    for number, pair in enumerate(LOOKALIKES):
        for frame in rng.sample(FRAMES, 3):
            first, second = (frame.format(word) for word in pair.split())
            yield _row(f"l{number}", "lookalike", first, second, False)


def _groups() -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(section, question, paraphrases, traps)."""
    section = ""
    for line in (HERE / "groups.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
            continue
        question, *rest = (part.strip() for part in re.split(r"\s(?=[+-]\s)", line))
        yield (
            section,
            question,
            [part[2:] for part in rest if part[0] == "+"],
            [part[2:] for part in rest if part[0] == "-"],
        )


def _repeated(rng: random.Random, group: str, text: str) -> Iterator[dict[str, object]]:
    for kind, changed in repeats(rng, text):
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
        for old, new in (
            ("Can I ", "Can't I avoid having to "), ("Is ", "Why isn't "), ("How do I ", "How do I avoid having to "),
            ("What ", "What if not: what "), ("Should I ", "Should I stop trying to "),
        ):  # fmt: skip
            if text.startswith(old):
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
                yield from islice(_repeated(rng, f"t{number}", _filled(first, chosen)), 2)
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
