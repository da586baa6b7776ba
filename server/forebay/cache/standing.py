"""Where the semantic tier stands: what it serves, why it does not, and what is known of its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from forebay.cache.aims import Aims
from forebay.cache.bound import Evidence, clean_labels_needed
from forebay.cache.cuts import Cuts, first_level
from forebay.cache.labels import Tally

Why = Literal["serving", "gathering scores", "gathering labels", "errors too many"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Rates are shares of the hits, not of the traps: errors among what is served."""

    serving: bool
    why: Why
    max_error_rate: float
    threshold: float | None
    """Least score that is served."""
    error_rate: float
    """Among labels from the threshold on, or from where it is sought; corrected for the judge's own errors."""
    error_upper95: float
    """Bound on it at all times, for the threshold having been chosen by the labels; `cache_false_hit_upper95`."""
    served_upper95: float
    """Bound on the errors among the very hits served, from their own labels, however requests drift."""
    num_hits: int
    hit_rate: float
    """Share of the hits that is regenerated now."""
    labels: Mapping[str, int]
    labels_in_force: float
    """Weight of the labels that the bound rests on."""
    clean_labels_needed: int
    """That many without an error would prove the threshold that is served from or sought."""
    num_alarms: int
    """How often a rise of errors ended what was known."""
    cuts: tuple[Mapping[str, float], ...]
    """Thresholds that are tested: score, candidates seen, weight of labels, error rate and its bound."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def standing_of(
    aims: Aims,
    cuts: Cuts,
    serving: int | None,
    target: int,
    served: Evidence,
    num_hits: int,
    hit_rate: float,
    num_alarms: int,
    tally: Tally,
) -> Standing:
    """`serving`, `target`: the cut that is served from, and the one that is sought."""
    levels = [level for level, _ in cuts.levels(aims.allowed, aims.alpha)]
    at = target if serving is None else serving
    evidence = cuts[at].evidence if len(cuts) else Evidence()
    needed = clean_labels_needed(aims.allowed, levels[at] if levels else first_level(aims.alpha))
    why: Why = "serving"
    if serving is None:
        why = "gathering labels" if evidence.rate <= aims.allowed else "errors too many"
        why = why if levels else "gathering scores"
    return Standing(
        serving=serving is not None,
        why=why,
        max_error_rate=aims.max_error_rate,
        threshold=None if serving is None else cuts[serving].score,
        error_rate=aims.error_rate(evidence.rate),
        error_upper95=aims.error_rate(evidence.upper(levels[at])) if levels else 1.0,
        served_upper95=aims.error_rate(served.upper(aims.alpha)),
        num_hits=num_hits,
        hit_rate=hit_rate,
        labels=dict(tally.counts),
        labels_in_force=evidence.mass,
        clean_labels_needed=needed,
        num_alarms=num_alarms,
        cuts=tuple(
            {
                "score": cut.score,
                "candidates": cut.num_candidates,
                "labels": cut.evidence.mass,
                "error_rate": aims.error_rate(cut.evidence.rate),
                "upper": aims.error_rate(cut.evidence.upper(level)),
            }
            for cut, level in zip(cuts, levels, strict=True)
        ),
    )
