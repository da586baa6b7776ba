"""Ten times what the engine can serve: what of it is served all the same, and how fast the rest is told to come back.

The scripted engine is set to 100 requests a second (10 slots, 100 ms each). Client and server share the machine. Prints
one JSON object.

    python benchmarks/overload.py [--times 10] [--seconds 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests")]

from forebay.bench.flags import at_least_one, positive  # noqa: E402 - after the path
from support.flood import Reply, flood  # noqa: E402  (the tests' support lies beside this directory, not on the path)
from support.server import ServerProcess  # noqa: E402 - after the path
from support.wire import post  # noqa: E402 - after the path

SLOTS, REQUEST_MS = 10, 100
CAPACITY = SLOTS * 1000 / REQUEST_MS
FILL_S = 1.0
"""Left out at the beginning: the queue fills, and what is not refused yet says nothing of refusals."""


def measure(port: int, times: float, seconds: float) -> dict[str, Any]:
    body = {"prompt": "a", "max_tokens": 1, "metadata": {"forebay_first_token_ms": str(REQUEST_MS)}}
    began = time.perf_counter()
    replies: list[Reply] = uvloop.run(
        flood(port, post("/v1/completions", body), rate=times * CAPACITY, seconds=seconds + FILL_S)
    )
    counted = [reply for reply in replies if FILL_S <= reply.at - began <= FILL_S + seconds]
    served = [reply for reply in counted if reply.status == 200]
    refused = sorted(reply.seconds for reply in counted if reply.status == 503)
    assert len(served) + len(refused) == len(counted)
    if not refused:
        raise SystemExit(f"Nothing was refused at {times:g} times the capacity: raise --times or --seconds.")
    assert all(reply.retry_after_s for reply in counted if reply.status == 503)
    return {
        "offered_per_s": times * CAPACITY,
        "goodput_per_s": round(len(served) / seconds, 1),
        "goodput_of_capacity": round(len(served) / seconds / CAPACITY, 3),
        "refused_per_s": round(len(refused) / seconds, 1),
        "refusal_ms": {
            "p50": round(1000 * refused[len(refused) // 2], 2),
            "p99": round(1000 * refused[int(0.99 * len(refused))], 2),
            "max": round(1000 * refused[-1], 2),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--seconds", type=positive, default=10.0)
    parser.add_argument("--rounds", type=at_least_one, default=3)
    parser.add_argument("--model", help="ignored: no model runs")
    options = parser.parse_args()
    if not 1 <= options.times < math.inf:
        parser.error("--times: 1 at least, which is all that the engine can serve")
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(
            Path(folder) / "log", ["--engine", "scripted"], {"FOREBAY_MAX_NUM_SEQS": str(SLOTS)}
        ).start()
        try:
            load_before = os.getloadavg()[0]
            rounds = [measure(server.port, options.times, options.seconds) for _ in range(options.rounds)]
        finally:
            server.stop()
    print(
        json.dumps(
            {
                "benchmark": "overload",
                "date": time.strftime("%Y-%m-%d"),
                "cores": os.cpu_count(),
                "load_average_before": round(load_before, 1),
                "capacity_per_s": CAPACITY,
                "goodput_of_capacity": min(each["goodput_of_capacity"] for each in rounds),
                "refusal_p99_ms": max(each["refusal_ms"]["p99"] for each in rounds),
                "refusal_p50_ms": statistics.median(each["refusal_ms"]["p50"] for each in rounds),
                "rounds": rounds,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
