"""Forebay's front end against vLLM's own, both on a vLLM whose engine costs next to nothing (`no_engine/launch.py`).

Forebay has a key with limits and budgets, prices, ledger, logs, metrics and the exact tier of the cache on; vLLM's
server has its defaults and none of it. `scripted` is Forebay on the scripted engine, as `forebay bench frontend` has
it, which reads a prompt and makes an answer for less. Servers share one core, the client has the other. They are
measured in turn: ratios compare within a round. Prints one JSON object.

    python benchmarks/front_ends.py --model DIRECTORY [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from forebay.bench.client import Target
from forebay.bench.cores import pinned, two_cores
from forebay.bench.datasets import DatasetOptions
from forebay.bench.disk import fdatasync_figures
from forebay.bench.environment import environment
from forebay.bench.frontend import SCRIPTED, SEQUENCES, first_failure
from forebay.bench.intervals import MIN_PAIRS, ratio_of
from forebay.bench.own_server import OwnServer, accounting_server
from forebay.bench.plan import Plan, Step
from forebay.bench.process import child_environment, free_port, running
from forebay.bench.quick import run_quick
from forebay.bench.serve import run_step

LAUNCH = str(Path(__file__).parent / "no_engine" / "launch.py")
KV_CACHE_MIB = 512
READY_TIMEOUT_S = 240.0
PROMPT_LEN = 8


@dataclass(frozen=True, slots=True)
class Load:
    connections: int
    tokens: int
    stream: bool
    num_requests: int
    figure: str


LOADS = {
    "whole": Load(connections=16, tokens=16, stream=False, num_requests=2000, figure="requests_per_s"),
    "streams": Load(connections=32, tokens=256, stream=True, num_requests=160, figure="tokens_per_s"),
}
"""The second makes a frame of each token in vLLM's server."""


@contextmanager
def vllm_server(model: str, core: int | None) -> Iterator[OwnServer]:
    port = free_port()
    words = ["--model", model, "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    kv_cache = ["--kv-cache-memory-bytes", str(KV_CACHE_MIB << 20)]
    command = [sys.executable, LAUNCH, "vllm", *words, *kv_cache]
    env = child_environment({"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"})
    with TemporaryDirectory(prefix="forebay-bench-") as name:
        log = Path(name, "log")
        with running(command, env, f"http://127.0.0.1:{port}/health", log, READY_TIMEOUT_S, core) as process:
            yield OwnServer(process, port, Path(name), core=core)


@contextmanager
def forebay_server(model: str, core: int | None) -> Iterator[OwnServer]:
    flags = ["--engine", "vllm", "--model", model, "--cache", "exact", "--max-num-seqs", SEQUENCES]
    with accounting_server(*flags, core=core, program=(LAUNCH, "forebay")) as server:
        yield server


def measure(server: OwnServer, load: Load, seed: int) -> dict[str, float]:
    head = {"Authorization": f"Bearer {server.key}"} if server.key else {}
    model = httpx.get(f"{server.url}/v1/models", headers=head).json()["data"][0]["id"]
    step = Step(load.num_requests, max_concurrency=load.connections)
    plan = Plan(
        Target(server.url, api_key=server.key),
        [step],
        DatasetOptions(input_len=PROMPT_LEN, output_len=load.tokens),
        model=model,
        stream=load.stream,
        ignore_eos=True,
        extra_body={"metadata": {"forebay_burst": "1"}} if load.stream and model == "scripted" else {},
        seed=seed,
    )
    before_s = server.cpu_s()
    ran = run_quick(run_step(plan, step, seed))
    cpu_s, result = server.cpu_s() - before_s, ran.result
    if result["failed"]:
        raise SystemExit(f"Requests failed: {result['error_counts']}, {first_failure(ran.outcomes)}")
    num_tokens = result["total_output_tokens"]
    return {
        "requests_per_s": result["request_throughput"],
        "tokens_per_s": result["output_throughput"],
        "p50_ms": result["p50_e2el_ms"],
        "p99_ms": result["p99_e2el_ms"],
        "cpu_us_per_request": cpu_s / load.num_requests * 1e6,
        "cpu_us_per_token": cpu_s / num_tokens * 1e6,
        "tokens_per_frame": num_tokens / sum(len(outcome.itls_s) + 1 for outcome in ran.outcomes),
        "client_cpu_share": result["client_cpu_share"],
    }


def compare(servers: dict[str, OwnServer], load: Load, num_rounds: int) -> dict[str, Any]:
    """A first round warms up."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for number in range(num_rounds + 1):
        for name in list(servers) if number % 2 else reversed(servers):
            found = measure(servers[name], load, seed=number)
            if number:
                rounds[name].append(found)
    of_all = {name: [each[load.figure] for each in found] for name, found in rounds.items()}
    ratios = {name: str(ratio_of(of_all[name], of_all["vllm"])) for name in rounds if name != "vllm"}
    medians = {
        name: {figure: statistics.median([each[figure] for each in found]) for figure in found[0]}
        for name, found in rounds.items()
    }
    return {**medians, f"{load.figure}_of_vllm": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=MIN_PAIRS)
    args = parser.parse_args()
    if args.rounds < MIN_PAIRS:
        parser.error(f"--rounds: {MIN_PAIRS} at least, or the ratios have no interval")
    where = environment()
    core, client_core = two_cores() or (None, None)
    with ExitStack() as stack:
        servers = {
            "forebay": stack.enter_context(forebay_server(args.model, core)),
            "scripted": stack.enter_context(accounting_server(*SCRIPTED, core=core)),
            "vllm": stack.enter_context(vllm_server(args.model, core)),
        }
        stack.enter_context(pinned(client_core))
        found: dict[str, Any] = fdatasync_figures(servers["forebay"].data)
        found |= {name: compare(servers, load, args.rounds) for name, load in LOADS.items()}
    print(json.dumps({"front_ends": found, "environment": where}, indent=2))


if __name__ == "__main__":
    main()
