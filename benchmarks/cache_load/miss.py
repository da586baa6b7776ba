"""What a miss with the cache on costs a real engine's throughput."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from forebay.bench.client import Target
from forebay.bench.compare import as_json, compare, run_pairs
from forebay.bench.datasets import DatasetOptions
from forebay.bench.own_server import OwnServer, open_server
from forebay.bench.plan import Plan, Step
from forebay.bench.quick import run_quick

STREAMS, NUM, INPUT_LEN, OUTPUT_LEN = 16, 64, 64, 64
SETTINGS = {"FOREBAY_CACHE_COST_RULE": "false", "FOREBAY_CACHE_VERIFICATION": "false"}
"""Nothing is found, so the cost rule would leave look-ups out; checking the model is no part of what a miss costs."""

LEAST_LOOKED_UP = 0.9
"""Of the requests, by the semantic tier: words at random may name a time or a person, which it leaves out."""

LOOK_UPS = re.compile(r'^forebay_cache_lookups_total\{outcome="(\w+)",tier="semantic"\} (\S+)$', re.MULTILINE)
READY_TIMEOUT_S = 60.0


def measure(engine: str, model: str | None, tier: str, pairs: int, show: Callable[[str], None]) -> dict[str, Any]:
    """Throughput and latencies of a server with the tier against one without, in turn: prompts that nobody asked, and
    answers that end by their length, so that none of them is stored."""
    flags = ["--engine", engine, *(["--model", model] if model else [])]
    with open_server(*flags, "--cache", tier, settings=SETTINGS) as on, open_server(*flags) as off:
        if tier == "semantic":
            _wait_until_it_looks_up(on)
        before = _looked_up(on)
        one, other = (_plan(server) for server in (on, off))
        with_it, without = run_quick(
            run_pairs(one, other, pairs, lambda a, b: show(f"{_rate(a.result)} against {_rate(b.result)} tokens/s"))
        )
        counts = [ran.result["cache_counts"] for ran in with_it]
        looked_up = _looked_up(on) - before
    assert all(each == {"miss": NUM} for each in counts), counts
    if tier == "semantic":
        assert looked_up.total() >= LEAST_LOOKED_UP * pairs * NUM, looked_up
    return {
        "engine": engine,
        "tier": tier,
        "streams": STREAMS,
        "semantic_look_ups": dict(looked_up),
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


def _wait_until_it_looks_up(server: OwnServer) -> None:
    """Its embedder loads while it answers already."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    with httpx.Client(base_url=server.url, timeout=READY_TIMEOUT_S) as http:
        while not _looked_up(server):
            assert time.monotonic() < deadline, "the semantic tier does not look up"
            question = {"role": "user", "content": f"What is number {time.monotonic_ns()}?"}
            asked = {"messages": [question], "temperature": 0, "max_tokens": 1}
            http.post("/v1/chat/completions", json=asked).raise_for_status()
            time.sleep(0.2)


def _looked_up(server: OwnServer) -> Counter[str]:
    """By the semantic tier, so many with this outcome."""
    found = LOOK_UPS.findall(httpx.get(f"{server.url}/metrics").text)
    return Counter({outcome: round(float(count)) for outcome, count in found if outcome != "skipped"})


def _rate(result: dict[str, Any]) -> str:
    return f"{result['output_throughput']:.1f}"
