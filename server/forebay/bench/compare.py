"""`bench compare`: what one server is of another, pair by pair, with intervals that say how sure that is."""

from __future__ import annotations

import asyncio
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forebay.bench.intervals import MIN_PAIRS, Ratio, ratio_of
from forebay.bench.plan import Plan
from forebay.bench.serve import Ran, run_plan
from forebay.bench.summary import failures_of
from forebay.errors import ConfigurationError

MORE_IS_BETTER = ("request_throughput", "output_throughput", "request_goodput")
ASKED = ("request_rate", "burstiness", "max_concurrency", "dataset_name", "num_prompts", "stream")
"""What a pair must have in common, as far as its results say."""
LESS_IS_BETTER = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "median_e2el_ms", "p99_e2el_ms")


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of A and of B (medians over the pairs) and the ratio A / B; None where one of the values is 0."""

    field: str
    first: float
    second: float
    num_pairs: int
    ratio: Ratio | None

    @property
    def verdict(self) -> str:
        """Of A: `better` or `worse` where the interval leaves 1 out, else `same` as far as these pairs can tell."""
        if self.ratio is None:
            return "no ratio"
        if self.ratio.low <= 1 <= self.ratio.high:
            return "same"
        return "better" if (self.ratio.median > 1) == (self.field in MORE_IS_BETTER) else "worse"


def compare(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> list[Compared]:
    """Every figure that all results have. Raises ConfigurationError for fewer than 7 pairs, unequal numbers, results
    with failures, and pairs that were not asked the same."""
    if len(first) != len(second):
        raise ConfigurationError(f"A has {len(first)} results and B has {len(second)}: they must come in pairs.")
    if len(first) < MIN_PAIRS:
        raise ConfigurationError(f"{len(first)} pairs say nothing with 95% confidence: {MIN_PAIRS} are needed.")
    for pair in zip(first, second, strict=True):
        _check_pair(*pair)
    compared = []
    for field in (*MORE_IS_BETTER, *LESS_IS_BETTER):
        columns = [[_figure(result, field) for result in results] for results in (first, second)]
        if max(map(max, columns)) > 0:  # 0 everywhere: nothing of it was measured
            ratio = ratio_of(*columns) if min(map(min, columns)) > 0 else None
            one, other = map(statistics.median, columns)
            compared.append(Compared(field, one, other, len(first), ratio))
    if not compared:
        raise ConfigurationError("A and B have no figure in common.")
    return compared


def _check_pair(one: dict[str, Any], other: dict[str, Any]) -> None:
    for side, result in (("A", one), ("B", other)):
        if result.get("failed"):
            raise ConfigurationError(
                f"{side} has {result['failed']} failures: a ratio of what was refused says nothing."
            )
    for field in ASKED:
        if field in one and field in other and one[field] != other[field]:
            raise ConfigurationError(f"A and B were not asked the same: {field} {one[field]!r} and {other[field]!r}.")


def _figure(result: dict[str, Any], field: str) -> float:
    """0 where there is none."""
    value = result.get(field)
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{field} of a result is no figure: {value!r}.")
    return float(value)


async def run_pairs(
    plan: Plan, other: Plan, num_pairs: int, on_pair: Callable[[Ran, Ran], None] | None = None, *, rest_s: float = 0.0
) -> tuple[list[Ran], list[Ran]]:
    """Each plan's only step, in turn; who begins alternates, both are asked the same, and no pair what another was.

    A first pair warms both up and is not kept. `rest_s` passes before each turn. Raises ConfigurationError where
    requests fail: a ratio of servers that refuse says nothing.
    """
    kept: tuple[list[Ran], list[Ran]] = ([], [])
    for number in range(num_pairs + 1):
        seed = plan.seed + number
        pair: dict[int, Ran] = {}
        for side in (0, 1) if number % 2 else (1, 0):
            await asyncio.sleep(rest_s)
            (pair[side],) = await run_plan(replace((plan, other)[side], seed=seed))
            if failures := pair[side].result["error_counts"]:
                said = " ".join(failures_of(pair[side].result))
                raise ConfigurationError(f"{'AB'[side]} fails: {failures}. {said}")
        if number:
            kept[0].append(pair[0])
            kept[1].append(pair[1])
            if on_pair is not None:
                on_pair(pair[0], pair[1])
    return kept


def table(compared: Sequence[Compared]) -> str:
    """For a terminal."""
    head = f"{'':<20}{'A':>12}{'B':>12}   A / B (95% interval of the median)   A is"
    lines = [
        f"{each.field:<20}{each.first:>12.2f}{each.second:>12.2f}   {each.ratio or '-'!s:<35}  {each.verdict}"
        for each in compared
    ]
    return "\n".join([head, *lines])


def as_json(compared: Sequence[Compared]) -> dict[str, Any]:
    """By field; `ratio` is null where a value is 0."""
    return {
        each.field: {
            "a": each.first,
            "b": each.second,
            "ratio": each.ratio and each.ratio.median,
            "ratio_95": each.ratio and [each.ratio.low, each.ratio.high],
            "pairs": each.num_pairs,
            "a_is": each.verdict,
        }
        for each in compared
    }
