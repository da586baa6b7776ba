"""Figures as text for a terminal."""

from __future__ import annotations

from typing import Any

from forebay.bench.figures import METRICS
from forebay.bench.quick import BUSY

LINES = (
    ("completed", "completed", "d"),
    ("failed", "failed", "d"),
    ("duration", "duration, s", ".2f"),
    ("request_throughput", "requests/s", ".2f"),
    ("request_goodput", "requests/s within the SLOs", ".2f"),
    ("total_input_tokens", "input tokens", "d"),
    ("total_output_tokens", "output tokens", "d"),
    ("output_throughput", "output tokens/s", ".1f"),
    ("max_concurrent_requests", "most requests at once", "d"),
)


def summary(name: str, result: dict[str, Any]) -> str:
    """Of one step."""
    lines = [f"== {name}"]
    lines += [f"{title:<28}{result[field]:{form}}" for field, title, form in LINES if result.get(field) is not None]
    percentiles = [
        field[: -len("_e2el_ms")] for field in result if field.startswith("p") and field.endswith("_e2el_ms")
    ]
    columns = ["mean", *([] if "p50" in percentiles else ["median"]), *percentiles]
    lines.append(f"{'ms':<8}" + "".join(f"{column:>10}" for column in columns))
    for metric in METRICS:
        if result["total_output_tokens"] or metric == "e2el":
            values = [result[f"{column}_{metric}_ms"] for column in columns]
            lines.append(f"{metric.upper():<8}" + "".join(f"{value:>10.2f}" for value in values))
    return "\n".join([*lines, *warnings_of(result)])


def warnings_of(result: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    if result["error_counts"]:
        said.append("Failures: " + ", ".join(f"{num} {kind}" for kind, num in result["error_counts"].items()) + ".")
    if result["num_prompts"] < result["num_prompts_asked"]:
        said.append(f"The dataset holds {result['num_prompts']} requests, not {result['num_prompts_asked']}.")
    if result["num_without_usage"]:
        said.append(f"{result['num_without_usage']} answers came without usage: their tokens are not counted.")
    if result.get("client_cpu_share", 0) > BUSY:
        share = result["client_cpu_share"]
        said.append(f"The client took {share:.0%} of a core: it may be what limits these figures.")
    return said
