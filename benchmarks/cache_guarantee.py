"""Whether the semantic tier keeps the error rate that was set: the decision and its labels on a generated stream.

Each run asks 20,000 questions of `cache_stream/questions.txt`, worded in many ways, by Zipf's law over a popularity
that drifts; labels come from the shadow mechanism alone. No engine and no HTTP: answers are known by their question.

1. `rates`: at each `max_error_rate`, in how many runs the errors among hits exceeded it, and the share of true repeats
   that was served after the first 5,000 requests.
2. `judge`: the same where the judge errs in 5% of cases: unknown to the tier, known to it, and confirmed by a second
   judgement of what is called different.
3. `break`: from the middle on, one in ten of the pairs that say the same have different answers all the same, which no
   text shows.

Prints one JSON object.

    python benchmarks/cache_guarantee.py [--seeds 20] [--parts rates judge break] [--requests 20000]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests")]

from forebay.cache.aims import Aims  # noqa: E402 - after the path
from support.cache_scores import scored  # noqa: E402  (the tests' support lies beside this directory)
from support.cache_stream import NUM_REQUESTS, WARM_UP, Break, Judge, Outcome, Score, run  # noqa: E402
from support.cache_world import World, read_world  # noqa: E402

RATES = (0.005, 0.01, 0.02, 0.05)
ERRING = 0.05
COVERAGE = 0.3


def summary(outcomes: Sequence[Outcome], rate: float) -> dict[str, Any]:
    """What the runs at one rate came to."""
    coverages = [outcome.coverage for outcome in outcomes]
    begun = [outcome.began_at for outcome in outcomes if outcome.began_at is not None]
    hits = sum(outcome.hits for outcome in outcomes)
    return {
        "runs": len(outcomes),
        "runs_that_exceeded_the_rate": sum(outcome.error_rate > rate for outcome in outcomes),
        "error_rate_mean": round(statistics.mean(outcome.error_rate for outcome in outcomes), 5),
        "error_rate_max": round(max(outcome.error_rate for outcome in outcomes), 5),
        "runs_that_served_30_percent": sum(coverage >= COVERAGE for coverage in coverages),
        "served_of_repeats_min": round(min(coverages), 3),
        "served_of_repeats_median": round(statistics.median(coverages), 3),
        "served_of_repeats_max": round(max(coverages), 3),
        "hits_mean": round(hits / len(outcomes)),
        "hits_regenerated": round(sum(outcome.regenerated for outcome in outcomes) / max(1, hits), 4),
        "runs_that_served": len(begun),
        "requests_until_serving_median": round(statistics.median(begun)) if begun else None,
        "alarms": sum(outcome.standing.num_alarms for outcome in outcomes if outcome.standing is not None),
    }


def rates(world: World, score: Score, seeds: int, number: int) -> dict[str, Any]:
    return {
        f"{rate:g}": summary([run(world, score, Aims(rate), seed, **sized(number)) for seed in range(seeds)], rate)
        for rate in RATES
    }


def judge(world: World, score: Score, seeds: int, number: int) -> dict[str, Any]:
    once = Judge(false_alarm=ERRING, miss=ERRING)
    # Called different twice: an equal pair seldom is, an unequal one is missed more often.
    twice = Judge(false_alarm=ERRING**2, miss=1 - (1 - ERRING) ** 2)
    known: dict[str, Any] = {"judge_false_alarm": once.false_alarm, "judge_miss": once.miss}
    confirmed: dict[str, Any] = {"judge_false_alarm": twice.false_alarm, "judge_miss": twice.miss}
    return {
        f"{rate:g}": {
            name: summary([run(world, score, aims, seed, judge=erring, **sized(number)) for seed in range(seeds)], rate)
            for name, erring, aims in (
                ("unknown", once, Aims(rate)),
                ("known", once, Aims(rate, **known)),
                ("confirmed", twice, Aims(rate, **confirmed)),
            )
        }
        for rate in RATES
    }


def breaking(world: World, score: Score, seeds: int, number: int) -> dict[str, Any]:
    broken = Break(number // 2, 0.1)
    return {
        f"{rate:g}": summary(
            [run(world, score, Aims(rate), seed, broken=broken, **sized(number)) for seed in range(seeds)], rate
        )
        for rate in RATES
    }


def sized(number: int) -> dict[str, Any]:
    return {"number": number, "warm_up": WARM_UP * number // NUM_REQUESTS}


PARTS = {"rates": rates, "judge": judge, "break": breaking}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=NUM_REQUESTS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--model", help="for `make bench-long`, which gives it to every benchmark; not used")
    asked = parser.parse_args()
    began = time.monotonic()
    world, score = scored(read_world())
    found = {part: PARTS[part](world, score, asked.seeds, asked.requests) for part in asked.parts}
    stream = {"requests": asked.requests, "questions": world.num_questions, "texts": len(world.texts)}
    print(json.dumps({"stream": stream, **found, "took_s": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
