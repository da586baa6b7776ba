"""`bench compare`: what one server is of another, pair by pair, with intervals that say how sure that is."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forebay.bench.intervals import MIN_PAIRS, Ratio, ratio_of
from forebay.bench.plan import Plan
from forebay.bench.serve import Ran, run_plan
from forebay.errors import ConfigurationError

MORE_IS_BETTER = ("request_throughput", "output_throughput", "request_goodput")
LESS_IS_BETTER = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "median_e2el_ms", "p99_e2el_ms")


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of A and of B (medians over the pairs) and the ratio A / B."""

    field: str
    first: float
    second: float
    ratio: Ratio

    @property
    def verdict(self) -> str:
        """Of A: `better` or `worse` where the interval leaves 1 out, else `same` as far as these pairs can tell."""
        if self.ratio.low <= 1 <= self.ratio.high:
            return "same"
        return "better" if (self.ratio.median > 1) == (self.field in MORE_IS_BETTER) else "worse"


def compare(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> list[Compared]:
    """Every figure that all results have. Raises ConfigurationError for fewer than 7 pairs, or unequal numbers."""
    if len(first) != len(second):
        raise ConfigurationError(f"A has {len(first)} results and B has {len(second)}: they must come in pairs.")
    if len(first) < MIN_PAIRS:
        raise ConfigurationError(f"{len(first)} pairs say nothing with 95% confidence: {MIN_PAIRS} are needed.")
    compared = []
    for field in (*MORE_IS_BETTER, *LESS_IS_BETTER):
        columns = [[result.get(field) or 0.0 for result in results] for results in (first, second)]
        if min(map(min, columns)) > 0:
            first_median, second_median = map(statistics.median, columns)
            compared.append(Compared(field, first_median, second_median, ratio_of(*columns)))
    return compared


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
                raise ConfigurationError(f"{'AB'[side]} fails: {failures}.")
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
        f"{each.field:<20}{each.first:>12.2f}{each.second:>12.2f}   {each.ratio!s:<35}  {each.verdict}"
        for each in compared
    ]
    return "\n".join([head, *lines])


def as_json(compared: Sequence[Compared]) -> dict[str, Any]:
    return {
        each.field: {
            "a": each.first,
            "b": each.second,
            "ratio": each.ratio.median,
            "ratio_95": [each.ratio.low, each.ratio.high],
            "pairs": each.ratio.num_pairs,
            "a_is": each.verdict,
        }
        for each in compared
    }
