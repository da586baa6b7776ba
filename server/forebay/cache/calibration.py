"""The probability that two messages have one answer, with a lower bound: a logistic model and how sure it is of itself.

One model an embedder, fitted from data by scripts/fit_cache_calibration.py and shipped as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from forebay.cache.features import NAMES
from forebay.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Probability:
    """`lower` is the one-sided bound; both lie in [0, 1]."""

    estimate: float
    lower: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`weights` and `factor` are over the standardised features, the intercept last.

    The rows of `factor` are a root of the weights' covariance, robust to pairs of one group being alike (sandwich
    estimator, Liang and Zeger 1986); `z` is the normal quantile of the bound. `knots` map the score's lower end to the
    share of equal answers that pairs held out of the fit had around it, at its lower confidence bound.
    """

    embedder: str
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    factor: tuple[tuple[float, ...], ...]
    z: float
    knots: tuple[tuple[float, float], ...]

    def probability(self, features: Sequence[float], offset: float = 0.0) -> Probability:
        """`offset` is in log-odds: what labels of a scope have shown the model to be out by there."""
        values = self._standardised(features)
        score = sum(weight * value for weight, value in zip(self.weights, values, strict=True)) + offset
        spread = math.sqrt(sum(sum(map(_times, row, values)) ** 2 for row in self.factor))
        estimate = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, score))))
        return Probability(estimate, min(estimate, self._held_out_share(score - self.z * spread)))

    def contributions(self, features: Sequence[float]) -> Mapping[str, float]:
        """What each feature adds to the log-odds, against the average pair of the fit."""
        values = self._standardised(features)
        return {name: weight * value for name, weight, value in zip(NAMES, self.weights, values, strict=False)}

    def _standardised(self, features: Sequence[float]) -> list[float]:
        spread = zip(features, self.means, self.scales, strict=True)
        return [(value - mean) / scale for value, mean, scale in spread] + [1.0]

    def _held_out_share(self, score: float) -> float:
        """Between two knots on the line, below the first 0, from the last on its share."""
        if score < self.knots[0][0]:
            return 0.0
        for (left, low), (right, high) in zip(self.knots, self.knots[1:], strict=False):
            if score < right:
                return low + (high - low) * (score - left) / (right - left)
        return self.knots[-1][1]


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
        knots=tuple((score, share) for score, share in fields["knots"]),
    )
