"""Outcomes -> figures, under the names that `vllm bench serve` writes (vllm/benchmarks/serve.py)."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from forebay.bench.outcome import Outcome

METRICS = ("ttft", "tpot", "itl", "e2el")
SLOS = ("ttft", "tpot", "e2el")
"""What goodput may be asked of, milliseconds each."""
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


def figures(
    outcomes: Sequence[Outcome],
    duration_s: float,
    percentiles: Sequence[float] = PERCENTILES,
    slos_ms: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Failed requests count in `failed` and the `error_` fields only. Times in milliseconds, rates a second.

    `request_goodput` is None without SLOs. `error_messages` has the first of each kind.
    """
    whole = [outcome for outcome in outcomes if outcome.failure is None and not outcome.left]
    total_input = sum(outcome.prompt_tokens or 0 for outcome in whole)
    total_output = sum(outcome.output_tokens or 0 for outcome in whole)
    found: dict[str, Any] = {
        "duration": duration_s,
        "completed": len(whole),
        "failed": sum(outcome.failure is not None for outcome in outcomes),
        "total_input_tokens": total_input,
        "total_output_tokens": total_output,
        "request_throughput": len(whole) / duration_s,
        "request_goodput": None,
        "output_throughput": total_output / duration_s,
        "total_token_throughput": (total_input + total_output) / duration_s,
        "max_output_tokens_per_s": max(tokens_by_time(whole), default=0.0),
        "max_concurrent_requests": max_concurrent(whole),
        "total_cached_tokens": sum(outcome.cached_tokens for outcome in whole),
        "cache_counts": dict(Counter(outcome.cache for outcome in whole if outcome.cache)),
        "num_without_usage": sum(outcome.output_tokens is None for outcome in whole),
        "num_without_ttft": sum(outcome.ttft_s is None for outcome in whole),
        "error_counts": dict(Counter(outcome.kind for outcome in outcomes if outcome.failure is not None)),
        "error_messages": {each.kind: each.message for each in reversed(outcomes) if each.failure is not None},
    }
    if slos_ms:
        found["request_goodput"] = sum(meets(outcome, slos_ms) for outcome in whole) / duration_s
    for metric, seconds in samples(whole).items():
        found |= _distribution(metric, seconds, percentiles)
    if any(outcome.queued_s for outcome in whole):
        found |= _distribution("client_queue_time", sorted(outcome.queued_s for outcome in whole), percentiles)
    return found


def samples(whole: Sequence[Outcome]) -> dict[str, list[float]]:
    """Seconds by metric, ascending, of answers that came whole."""
    return {
        "ttft": sorted(outcome.ttft_s for outcome in whole if outcome.ttft_s is not None),
        "tpot": sorted(tpot for outcome in whole if (tpot := outcome.tpot_s) is not None),
        "itl": sorted(gap for outcome in whole for gap in outcome.itls_s),
        "e2el": sorted(outcome.latency_s for outcome in whole),
    }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of ascending values, linear between neighbours; 0 of none."""
    if not ordered:
        return 0.0
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentile_name(percent: float) -> str:
    return f"p{percent:g}"


def meets(outcome: Outcome, slos_ms: Mapping[str, float]) -> bool:
    """Whether an answer came within every one of `slos_ms`, named as in `SLOS`: what was not measured did not.

    An answer of one token has no TPOT to be too long.
    """
    tpot_s = 0.0 if outcome.ttft_s is not None and outcome.output_tokens in (0, 1) else outcome.tpot_s
    took = {"ttft": outcome.ttft_s, "tpot": tpot_s, "e2el": outcome.latency_s}
    return all((s := took[name]) is not None and s * 1000 <= limit for name, limit in slos_ms.items())


def tokens_by_time(whole: Sequence[Outcome], width_s: float = 1.0) -> list[float]:
    """Output tokens in each `width_s` since the first request, an answer's tokens spread evenly over its frames."""
    if not whole:
        return []
    begin_s = min(outcome.start_s for outcome in whole)
    end_s = max(outcome.start_s + outcome.latency_s for outcome in whole)
    bins = [0.0] * (int((end_s - begin_s) / width_s) + 1)
    for outcome in whole:
        at_s = outcome.start_s - begin_s + (outcome.latency_s if outcome.ttft_s is None else outcome.ttft_s)
        share = (outcome.output_tokens or 0) / (len(outcome.itls_s) + 1)
        bins[min(int(at_s / width_s), len(bins) - 1)] += share
        for gap in outcome.itls_s:
            at_s += gap
            bins[min(int(at_s / width_s), len(bins) - 1)] += share
    return bins


def max_concurrent(whole: Sequence[Outcome]) -> int:
    """The most requests that were open at one moment."""
    moments = [(outcome.start_s, 1) for outcome in whole]
    moments += [(outcome.start_s + outcome.latency_s, -1) for outcome in whole]
    most = now = 0
    for _, step in sorted(moments):
        now += step
        most = max(most, now)
    return most


def _distribution(metric: str, ordered: Sequence[float], percentiles: Sequence[float]) -> dict[str, float]:
    values = ordered or [0.0]
    return {
        f"mean_{metric}_ms": statistics.fmean(values) * 1000,
        f"median_{metric}_ms": percentile(values, 50) * 1000,
        f"std_{metric}_ms": statistics.pstdev(values) * 1000,
        **{f"{percentile_name(each)}_{metric}_ms": percentile(values, each) * 1000 for each in percentiles},
    }
