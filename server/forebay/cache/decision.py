"""Whether one message's answer may be given to another: guards, then a probability with a lower bound."""

from __future__ import annotations

from dataclasses import dataclass

from forebay.cache.alignment import align
from forebay.cache.analysis import Analysis, analyse
from forebay.cache.calibration import Calibration, Probability
from forebay.cache.features import features
from forebay.cache.guards import Refusal, refusal

VERSION = 1
"""Raised with every change of guards, features or lexicon, and of how answers are compared: labels of one version say
nothing of another."""

REFUSED = Probability(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refusal` says which guard refused, and why; without one the probability counts."""

    probability: Probability
    refusal: Refusal | None = None

    def may_serve(self, max_error_rate: float) -> bool:
        return self.refusal is None and self.probability.lower >= 1.0 - max_error_rate


def decide(asked: str, stored: str, cosine: float, calibration: Calibration) -> Verdict:
    """Both messages as they were sent; `cosine` between the embeddings of their `match_form`s.

    Scopes must be equal: nothing of the conversation before is looked at here. Symmetric in the two messages.
    """
    return judge(analyse(asked), analyse(stored), cosine, calibration)


def judge(first: Analysis, second: Analysis, cosine: float, calibration: Calibration) -> Verdict:
    """`decide`, of messages that are taken apart already."""
    alignment = align(first, second)
    refused = refusal(first, second, alignment)
    if refused is not None:
        return Verdict(REFUSED, refused)
    return Verdict(calibration.probability(features(first, second, alignment, cosine)))
