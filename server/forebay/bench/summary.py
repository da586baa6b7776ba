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
        if result[f"mean_{metric}_ms"]:  # 0 where nothing was measured
            values = [result[f"{column}_{metric}_ms"] for column in columns]
            lines.append(f"{metric.upper():<8}" + "".join(f"{value:>10.2f}" for value in values))
    return "\n".join([*lines, *warnings_of(result)])


def warnings_of(result: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the figures."""
    said = []
    said += failures_of(result)
    if result["num_warmups_failed"]:
        said.append(f"{result['num_warmups_failed']} requests of the warm-up failed: the server may have been cold.")
    if not_asked := result["num_prompts"] - result["completed"] - result["failed"]:
        said.append(f"{not_asked} turns were not asked, because one before them failed.")
    if result["num_prompts"] < result["num_prompts_asked"]:
        said.append(f"The dataset holds {result['num_prompts']} requests, not {result['num_prompts_asked']}.")
    if result["num_without_usage"]:
        said.append(f"{result['num_without_usage']} answers came without usage: their tokens are not counted.")
    if result["stream"] and result["num_without_ttft"]:
        said.append(f"{result['num_without_ttft']} answers came without a stream or a text: they have no TTFT.")
    if result["completed"] and result["client_cpu_share"] > BUSY:
        share = result["client_cpu_share"]
        said.append(f"The client took {share:.0%} of a core: it may be what limits these figures.")
    return said


def failures_of(result: dict[str, Any]) -> list[str]:
    """How many of each kind, and what the first of them said."""
    messages = result["error_messages"]
    return [f"Failures: {num} {kind}: {messages[kind]}" for kind, num in result["error_counts"].items()]
