"""What the cache costs a request, and how fast the semantic tier looks up.

1. `exact`: one request at a time on the scripted engine without delays, answers of 16 tokens, keys, limits and ledger
   on: a hit and a miss against a server without a cache, medians of rounds that took turns with 95% intervals; CPU of
   the server at 16 connections.
2. `semantic`: at 30 requests/s (Poisson) with 50,000 entries in the scope: what a request takes more than one that asks
   for the exact tier only, embedding included; the rate that it bears, until the 99th percentile passes 250 ms; the
   99.9th percentile of a route that waits for the event loop alone, against the same server when idle.
3. `miss`: output tokens/s of an engine (`--engine vllm`) at 16 streams with and without the cache, nothing of it stored
   before.

The server is on one core and the client on another. Prints one JSON object.

    python benchmarks/cache_speed.py [--parts exact semantic miss] [--pairs 7] [--entries 50000] [--model DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from cache_load import exact, miss, semantic  # noqa: E402 - after the path
from forebay.bench.cores import two_cores  # noqa: E402 - after the path
from forebay.bench.own_server import OwnServer  # noqa: E402 - after the path
from support.cache_world import read_world  # noqa: E402  (the tests' support lies beside this directory)
from support.server import ServerProcess  # noqa: E402 - after the path

PARTS = ("exact", "semantic", "miss")


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def measure_semantic(num_entries: int) -> dict[str, Any]:
    cores = two_cores() or (None, None)
    with tempfile.TemporaryDirectory() as name:
        data = Path(name) / "data"
        env = {"FOREBAY_CACHE": "semantic", "FOREBAY_DATA_DIR": str(data), "FOREBAY_CACHE_TENANT_MIB": "1024"}
        # An engine that takes no time needs no cache, and no model to verify with.
        env |= {"FOREBAY_CACHE_COST_RULE": "false", "FOREBAY_CACHE_VERIFICATION": "false"}

        @contextmanager
        def start() -> Iterator[OwnServer]:
            running = ServerProcess(Path(name) / "log", ["--engine", "scripted"], env).start()
            try:
                assert running.process is not None
                if cores[0] is not None:
                    psutil.Process(running.process.pid).cpu_affinity([cores[0]])
                yield OwnServer(running.process, running.port, data, None, cores[0])
            finally:
                running.stop()

        return semantic.measure(start, data, num_entries, read_world().texts, cores[1], note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--requests", type=int, default=1000, help="of a round of `exact`")
    parser.add_argument("--entries", type=int, default=50_000)
    parser.add_argument("--engine", default="vllm", help="of `miss`, default %(default)s")
    parser.add_argument("--tier", default="exact", help="of `miss`, default %(default)s")
    parser.add_argument("--model", help="of `miss`; default: the demo model")
    options = parser.parse_args()
    found: dict[str, Any] = {"benchmark": "cache_speed", "date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count()}
    found["load_average_before"] = round(os.getloadavg()[0], 2)
    if "exact" in options.parts:
        found["exact"] = exact.measure(options.pairs, options.requests, note)
    if "semantic" in options.parts:
        found["semantic"] = measure_semantic(options.entries)
    if "miss" in options.parts:
        found["miss"] = miss.measure(options.engine, options.model, options.tier, options.pairs, note)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
