"""The semantic tier's metric families."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Protocol, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from forebay.cache.labelling import Labelling
from forebay.cache.semantic import SemanticTier, State


class ShadowCounts(Protocol):
    """See `forebay.shadowing.Shadow`."""

    @property
    def num_done(self) -> int: ...
    @property
    def num_dropped(self) -> int: ...


def semantic_families(tier: SemanticTier, labelling: Labelling, shadow: ShadowCounts) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "forebay_cache_semantic_state",
        "1 for the state the semantic tier is in; off: looking up does not pay for now.",
        labels=("state",),
    )
    for state in get_args(State):
        states.add_metric((state,), state == tier.state)
    yield states
    known = [assurance for _, assurance in tier.labels.in_use()]
    owners = GaugeMetricFamily(
        "forebay_cache_label_owners",
        "Tenants, or groups that share answers, whose labels let hits be served, or not yet.",
        labels=("state",),
    )
    for state, count in Counter("observing" if one.threshold is None else "serving" for one in known).items():
        owners.add_metric((state,), count)
    yield owners
    if bounds := [bound for one in known if (bound := one.error_upper95) is not None]:
        yield GaugeMetricFamily(
            "forebay_cache_false_hit_upper95",
            "Upper bound, at all times with a chance of 95%, on the share of wrong answers among hits: the highest of "
            "all owners'. Absent while nothing is served.",
            value=max(bounds),
        )
    labels = CounterMetricFamily(
        "forebay_cache_labels",
        "Stored answers compared with a request's own: the same, wrong, or lost before they could be.",
        labels=("label",),
    )
    for label, count in labelling.num_labels.items():
        labels.add_metric((label,), count)
    yield labels
    shadows = CounterMetricFamily(
        "forebay_cache_shadows", "Hits that were to be generated again for a label.", labels=("outcome",)
    )
    shadows.add_metric(("done",), shadow.num_done)
    shadows.add_metric(("dropped",), shadow.num_dropped)
    yield shadows
    yield GaugeMetricFamily(
        "forebay_cache_semantic_hit_rate",
        "Share of recent look-ups that found a hit, observed ones included.",
        value=tier.costs.hit_rate,
    )
    yield GaugeMetricFamily(
        "forebay_cache_semantic_break_even", "Hit rate from which on looking up pays.", value=tier.costs.break_even
    )
    for name, help_text, histogram in (
        ("embedding", "Of a message, with waiting for others.", tier.embed_s),
        ("semantic_lookup", "Embedding, search and decision.", tier.lookup_s),
    ):
        family = HistogramMetricFamily(f"forebay_cache_{name}_seconds", help_text)
        family.add_metric((), *histogram.read())
        yield family
