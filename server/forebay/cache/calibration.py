"""The probability that two messages have one answer, with a lower bound: a logistic model and how sure it is of itself.

One model an embedder, fitted from data by scripts/fit_cache_calibration.py and shipped as JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from forebay.cache.features import NAMES, NOTHING_LEFT
from forebay.errors import ConfigurationError

Knots = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Probability:
    """That two messages have one answer, in [0, 1].

    `estimate` is the model's, `score` the lower end of its 95% interval, by which candidates are ranked: of pairs that
    are unlike those of the fit the model is less sure. `lower` is what pairs held out of the fit bear out, at such a
    score.
    """

    estimate: float
    score: float
    lower: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`weights` and `factor` are over the standardised features, the intercept last.

    The rows of `factor` are a root of the weights' covariance, robust to pairs of one group being alike (sandwich
    estimator, Liang and Zeger 1986); `z` is the normal quantile of the bound. `knots` map the score's lower end to the
    share of equal answers that pairs held out of the fit had there, at its lower confidence bound: one map for pairs
    with words left over, one for those where every word has its counterpart.
    """

    embedder: str
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    factor: tuple[tuple[float, ...], ...]
    z: float
    knots: tuple[Knots, Knots]

    @property
    def name(self) -> str:
        """Of this embedder, with these numbers."""
        return f"{self.embedder}#{hashlib.sha256(repr(self).encode()).hexdigest()[:8]}"

    def probability(self, features: Sequence[float]) -> Probability:
        values = self._standardised(features)
        score = sum(weight * value for weight, value in zip(self.weights, values, strict=True))
        spread = math.sqrt(sum(sum(map(_times, row, values)) ** 2 for row in self.factor))
        low_end = score - self.z * spread
        # The model is the surer of the two about its ranking, the held-out pairs about what a rank is worth.
        lower = _held_out_share(self.knots[int(features[NOTHING_LEFT])], low_end)
        return Probability(max(_logistic(score), lower), _logistic(low_end), lower)

    def contributions(self, features: Sequence[float]) -> Mapping[str, float]:
        """What each feature adds to the log-odds, against the average pair of the fit."""
        values = self._standardised(features)
        return {name: weight * value for name, weight, value in zip(NAMES, self.weights, values, strict=False)}

    def _standardised(self, features: Sequence[float]) -> list[float]:
        spread = zip(features, self.means, self.scales, strict=True)
        return [(value - mean) / scale for value, mean, scale in spread] + [1.0]


def _held_out_share(knots: Knots, score: float) -> float:
    """That of the last knot not above the score, 0 below all."""
    at = bisect_right(knots, score, key=_score)
    return knots[at - 1][1] if at else 0.0


def _logistic(score: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))


def _score(knot: tuple[float, float]) -> float:
    return knot[0]


def _times(first: float, second: float) -> float:
    return first * second


def load_calibration(embedder: str) -> Calibration:
    """The one shipped for this embedder's name. Raises ConfigurationError if there is none or its features differ."""
    name = embedder.replace("/", "-").lower()
    resource = files("forebay.cache").joinpath("data", f"calibration-{name}.json")
    if not resource.is_file():
        raise ConfigurationError(
            f"No calibration is shipped for the embedder {embedder}: scripts/fit_cache_calibration.py fits one."
        )
    return parse_calibration(resource.read_text(encoding="utf-8"))


def parse_calibration(text: str) -> Calibration:
    """Raises ConfigurationError where the model was fitted on other features than these."""
    fields = json.loads(text)
    if tuple(fields.pop("features")) != NAMES:
        raise ConfigurationError("The cache's calibration was fitted on other features: fit it again.")
    return Calibration(
        embedder=fields["embedder"],
        means=tuple(fields["means"]),
        scales=tuple(fields["scales"]),
        weights=tuple(fields["weights"]),
        factor=tuple(tuple(row) for row in fields["factor"]),
        z=fields["z"],
        knots=(_knots(fields["knots"][0]), _knots(fields["knots"][1])),
    )


def _knots(rows: Sequence[tuple[float, float]]) -> Knots:
    return tuple((score, share) for score, share in rows)
