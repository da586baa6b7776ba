"""The metric families of verification, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay.cache.verification.check_set import TASKS
from forebay.cache.verification.verification import Verification


class VerificationFamilies:
    def __init__(self, verification: Verification) -> None:
        self._verification = verification

    async def read(self) -> list[Metric]:
        return list(_families(self._verification))


def _families(verification: Verification) -> Iterator[Metric]:
    """`task`: questions (does one answer serve both) or answers (the judge)."""
    standing = GaugeMetricFamily(
        "forebay_cache_verification",
        "1 for where the served model stands: waiting, checking, earned, failed, slow or unavailable.",
        labels=("task", "standing"),
    )
    ratio = GaugeMetricFamily(
        "forebay_cache_verification_ratio",
        "How much more often, at least, its yes comes to pairs with one answer than to others, by the check set.",
        labels=("task",),
    )
    for task in TASKS:
        standing.add_metric((task, verification.standings[task]), 1)
        if (grade := verification.grade(task)) is not None:
            ratio.add_metric((task,), grade.ratio("yes"))
    yield standing
    yield ratio
    asks = CounterMetricFamily(
        "forebay_cache_verification_asks",
        "Questions to the served model for requests and labels, by its word or why there is none: slow, unavailable, "
        "astray.",
        labels=("task", "outcome"),
    )
    for labels, count in verification.outcomes.items():
        asks.add_metric(labels, count)
    yield asks
    tokens = CounterMetricFamily(
        "forebay_cache_verification_prompt_tokens",
        "Prompt tokens of these questions that the engine computed, or found in its prefix cache.",
        labels=("found",),
    )
    cached = verification.num_cached_tokens
    tokens.add_metric(("computed",), verification.num_prompt_tokens - cached)
    tokens.add_metric(("cached",), cached)
    yield tokens
    yield GaugeMetricFamily(
        "forebay_cache_verification_ask_seconds",
        "Seconds that the engine takes for a question, in the mean of the last hundred.",
        value=verification.ask_s,
    )
