"""Why two messages would match, or not, in words: for the operator who asks, never for a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from forebay.cache.alignment import align
from forebay.cache.analysis import analyse, match_form
from forebay.cache.calibration import Calibration
from forebay.cache.decision import Verdict, decide
from forebay.cache.features import features
from forebay.cache.volatile import volatile


@dataclass(frozen=True, slots=True)
class Explanation:
    """`matches` are (kind, word, word); `contributions` what each feature adds to the log-odds, the largest first.

    `volatile` names what would keep the second message's answer, or the first message, out of the semantic tier.
    """

    verdict: Verdict
    forms: tuple[str, str]
    matches: tuple[tuple[str, str, str], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    contributions: Mapping[str, float]
    volatile: str | None


def explain(asked: str, stored: str, cosine: float, calibration: Calibration, offset: float = 0.0) -> Explanation:
    """Takes what `decide` takes; costs about twice as much."""
    first, second = analyse(asked), analyse(stored)
    alignment = align(first, second)
    added = calibration.contributions(features(first, second, alignment, cosine))
    return Explanation(
        verdict=decide(asked, stored, cosine, calibration, offset),
        forms=(match_form(asked), match_form(stored)),
        matches=tuple(
            (match.kind, first.content[match.first].word, second.content[match.second].word)
            for match in alignment.matches
        ),
        only_first=tuple(token.word for token in alignment.only_first),
        only_second=tuple(token.word for token in alignment.only_second),
        contributions=dict(sorted(added.items(), key=lambda item: -abs(item[1]))),
        volatile=volatile(asked) or volatile(stored),
    )
