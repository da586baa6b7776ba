"""What an operator asks of the semantic tier, and how its answers are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from forebay.cache.comparison import MISSED
from forebay.cache.scope import GROUP
from forebay.errors import ConfigurationError
from forebay.tenants.keys import TENANT_NAME

MOST = 0.5
"""Largest error rate that can be asked for."""


@dataclass(frozen=True, slots=True)
class Aims:
    """Raises ValueError for values out of range."""

    max_error_rate: float
    """Wrong answers among the hits that are served, in (0, 0.5]."""
    alpha: float = 0.05
    """Chance with which the bound may fail, over all times."""
    floor: float = 0.5
    """Candidates that score lower are never served and not labelled."""
    num_pilots: int = 200
    """Candidates whose scores set the cuts, before labels count."""
    hit_rate: float = 0.02
    """Share of the hits that is regenerated in the shadow while all is well."""
    suspicious_rate: float = 0.2
    """The same while errors seem to rise."""
    judge_false_alarm: float = 0.0
    """Share of equal answers that the judge surely calls different: that much of the rate is its own errors."""
    judge_miss: float = 0.0
    """Largest share of different answers that the judge may call equal."""

    def __post_init__(self) -> None:
        sound = (
            0 < self.max_error_rate <= MOST
            and 0 < self.alpha < 0.5
            and 0 <= self.floor < 1
            and self.num_pilots >= 10
            and 0 < self.hit_rate <= self.suspicious_rate <= 1
            and min(self.judge_false_alarm, self.judge_miss) >= 0
            and self.judge_false_alarm + self.judge_miss < 0.5
        )
        if not sound:
            raise ValueError("a rate of the semantic cache is out of range")

    @property
    def allowed(self) -> float:
        """The rate of labels "different" that `max_error_rate` comes to, with this judge."""
        return self.judge_false_alarm + self.max_error_rate * (1 - self.judge_false_alarm - self.judge_miss)

    def error_rate(self, labelled: float) -> float:
        """The rate of errors behind a rate of labels "different"; an upper bound for an upper bound."""
        corrected = (labelled - self.judge_false_alarm) / (1 - self.judge_false_alarm - self.judge_miss)
        return min(1.0, max(0.0, corrected))


def read_aims(max_error_rate: float, others: Iterable[str], shadow_rate: float) -> Callable[[str], Aims]:
    """The aims of an owner of answers: `others` are `owner=rate`, the rest has the first rate. `shadow_rate`: of hits,
    ten times as many under suspicion. Raises ConfigurationError."""

    def aims(rate: float) -> Aims:
        suspicious_rate = min(1.0, 10 * shadow_rate)
        return Aims(rate, hit_rate=shadow_rate, suspicious_rate=suspicious_rate, judge_miss=MISSED)

    general, own = aims(max_error_rate), dict[str, Aims]()
    for item in others:
        owner, _, given = item.partition("=")
        try:
            rate = float(given)
        except ValueError:
            rate = 0.0
        if not is_owner(owner) or not 0 < rate <= MOST:
            raise ConfigurationError(
                f"FOREBAY_CACHE_ERROR_RATES: {item!r} is not of the form tenant=0.05 or {GROUP}name=0.05, of at most "
                f"{MOST}."
            )
        own[owner] = aims(rate)
    return lambda owner: own.get(owner, general)


def is_owner(name: str) -> bool:
    """Whether it may be one's: a tenant's name, or a group's behind `group:`."""
    return TENANT_NAME.fullmatch(name.removeprefix(GROUP)) is not None
