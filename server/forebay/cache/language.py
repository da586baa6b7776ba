"""Which language a message is likely in, as far as the guards need to know."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.cache.lexicon import english, word_set

_COMMON = {
    language: word_set(words)
    for language, words in {
        "en": "the a an is are do does did how what why when where who which can could should to of in on for my i "
            "you and it with me at we our your by be this that please has have not from will would any there",
        "es": "el la los las un una es son cómo como qué que por para mi de del en con y cuándo dónde puedo está no "
            "se al su",
        "fr": "le la les un une est sont comment quoi que pourquoi quand où mon ma mes de du des en avec et je "
            "puis-je peut il au pour",
        "de": "der die das ein eine ist sind wie was warum wann wo mein meine von im in mit und ich kann zu den dem "
            "für auf",
        "it": "il lo la gli un una è sono come che perché quando dove mio mia di del in con e posso per si al da",
        "pt": "o a os as um uma é são como que por quando onde meu minha de do da em com e posso para não se",
        "nl": "de het een is zijn hoe wat waarom wanneer waar mijn van in met en ik kan te op voor",
    }.items()
}  # fmt: skip


def is_english(words: Sequence[str]) -> bool:
    """Whether English is the likeliest: by its small words or, in a text without any, by known words."""
    if any(ord(character) > 0x24F and character.isalpha() for word in words for character in word):
        return False
    counts = {language: sum(word in common for word in words) for language, common in _COMMON.items()}
    best = max(counts.values())
    if best == 0 or counts["en"] == best:
        known = english().known
        return best > 0 or 2 * sum(word in known for word in words) >= len(words)
    return False
