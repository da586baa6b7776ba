"""Why two messages would match, or not, in words: for the operator who asks, never for a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forebay.cache.aims import Aims
from forebay.cache.alignment import align
from forebay.cache.analysis import analyse, match_form
from forebay.cache.calibration import Calibration
from forebay.cache.decision import Verdict, decide
from forebay.cache.features import features
from forebay.cache.volatile import Dependence, depends_on


@dataclass(frozen=True, slots=True)
class Explanation:
    """`matches` are (kind, word, word); `contributions` what each feature adds to the log-odds, the largest first.

    `volatile` is what keeps one of the messages out of the semantic tier.
    """

    verdict: Verdict
    cosine: float
    forms: tuple[str, str]
    matches: tuple[tuple[str, str, str], ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    contributions: Mapping[str, float]
    volatile: Dependence | None

    def as_dict(self, threshold: float | None, aims: Aims) -> dict[str, Any]:
        """For JSON. `threshold`: the score that hits need now; None where nothing is served yet."""
        refusal, probability, volatile = self.verdict.refusal, self.verdict.probability, self.volatile
        action = "miss"
        if refusal is None and volatile is None:
            served, watched = ("observe", aims.floor) if threshold is None else ("serve", threshold)
            action = served if probability.score >= watched else "miss"
        return {
            "action": action,
            "refused_by": None if refusal is None else {"guard": refusal.guard, "reason": refusal.reason},
            "volatile": None if volatile is None else {"depends_on": volatile.kind, "words": volatile.words},
            "probability": round(probability.estimate, 4),
            "score": round(probability.score, 4),
            "lower_bound": round(probability.lower, 4),
            "threshold": threshold,
            "max_error_rate": aims.max_error_rate,
            "cosine": round(self.cosine, 4),
            "match_forms": list(self.forms),
            "matches": [list(match) for match in self.matches],
            "only_in_asked": list(self.only_first),
            "only_in_stored": list(self.only_second),
            "contributions": {
                name: round(added, 3) for name, added in self.contributions.items() if abs(added) >= 0.05
            },
        }


def explain(asked: str, stored: str, cosine: float, calibration: Calibration) -> Explanation:
    """Takes what `decide` takes; costs about twice as much."""
    first, second = analyse(asked), analyse(stored)
    alignment = align(first, second)
    added = calibration.contributions(features(first, second, alignment, cosine))
    return Explanation(
        verdict=decide(asked, stored, cosine, calibration),
        cosine=cosine,
        forms=(match_form(asked), match_form(stored)),
        matches=tuple(
            (match.kind, first.content[match.first].word, second.content[match.second].word)
            for match in alignment.matches
        ),
        only_first=tuple(token.word for token in alignment.only_first),
        only_second=tuple(token.word for token in alignment.only_second),
        contributions=dict(sorted(added.items(), key=lambda item: -abs(item[1]))),
        volatile=depends_on(asked) or depends_on(stored),
    )
