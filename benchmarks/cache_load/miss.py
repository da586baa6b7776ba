"""What a miss with the cache on costs a real engine's throughput."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forebay.bench.client import Target
from forebay.bench.compare import as_json, compare, run_pairs
from forebay.bench.datasets import DatasetOptions
from forebay.bench.own_server import OwnServer, open_server
from forebay.bench.plan import Plan, Step
from forebay.bench.quick import run_quick

STREAMS, NUM, INPUT_LEN, OUTPUT_LEN = 16, 64, 64, 64


def measure(engine: str, model: str | None, tier: str, pairs: int, show: Callable[[str], None]) -> dict[str, Any]:
    """Throughput and latencies of a server with the tier against one without, in turn: prompts that nobody asked."""
    flags = ["--engine", engine, *(["--model", model] if model else [])]
    with open_server(*flags, "--cache", tier) as on, open_server(*flags) as off:
        one, other = (_plan(server) for server in (on, off))
        with_it, without = run_quick(
            run_pairs(one, other, pairs, lambda a, b: show(f"{_rate(a.result)} against {_rate(b.result)} tokens/s"))
        )
        counts = [ran.result["cache_counts"] for ran in with_it]
    assert all(each == {"miss": NUM} for each in counts), counts
    return {
        "engine": engine,
        "tier": tier,
        "streams": STREAMS,
        **as_json(compare([ran.result for ran in with_it], [ran.result for ran in without])),
    }


def _plan(server: OwnServer) -> Plan:
    return Plan(
        Target(server.url),
        [Step(NUM, max_concurrency=STREAMS)],
        DatasetOptions(input_len=INPUT_LEN, output_len=OUTPUT_LEN),
        extra_body={"temperature": 0},
        ignore_eos=True,
        num_warmups=STREAMS,
    )


def _rate(result: dict[str, Any]) -> str:
    return f"{result['output_throughput']:.1f}"
