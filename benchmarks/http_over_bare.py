"""What the HTTP layer costs on vLLM: output tokens a second through HTTP, as a share of bare AsyncLLM's.

Two engines with the same arguments live side by side: one in a process that calls `AsyncLLM.generate` itself, one
behind `forebay serve`. They are asked in turn, the same prompts each pair, so that a drifting machine hits both; the
figure is the median of the pairs' ratios and its interval (sign test). The HTTP client runs on the same cores and
counts against us.

    python benchmarks/http_over_bare.py [--streams 16 32] [--pairs 7] [--tokens 64] [--model DIR]

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests")]

PROMPT_TOKENS = 32
VOCABULARY = range(1000, 40_000)


def prompts(seed: int, streams: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.choice(VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(streams)]


async def bare_engine(model: str | None) -> None:
    """Serves jobs from standard input: `{"seed", "streams", "tokens"}` -> `{"tokens", "seconds"}`, a line each."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    from forebay.engines.auto import choose_engine
    from forebay.engines.model_source import resolve_model
    from forebay.engines.vllm_impl.launch import Launcher
    from forebay.engines.vllm_impl.stats import EngineCounters
    from forebay.settings import Settings

    settings = Settings(engine="vllm", model=model)
    source = resolve_model(settings, lambda line: None)
    launched = await Launcher(settings, source, choose_engine(settings).device, EngineCounters()).launch()

    async def one(position: int, seed: int, prompt: list[int], tokens: int) -> int:
        params = SamplingParams(
            max_tokens=tokens, ignore_eos=True, temperature=0.0, output_kind=RequestOutputKind.DELTA
        )
        count = 0
        async for output in launched.llm.generate(tokens_input(prompt), params, f"{seed}-{position}"):
            count += len(output.outputs[0].token_ids)
        return count

    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        job = json.loads(line)
        began = time.perf_counter()
        counts = await asyncio.gather(
            *[one(i, job["seed"], p, job["tokens"]) for i, p in enumerate(prompts(job["seed"], job["streams"]))]
        )
        print(json.dumps({"tokens": sum(counts), "seconds": time.perf_counter() - began}), flush=True)
    await launched.close(5.0)


class Reader(asyncio.Protocol):
    """Keeps the end of an answer, and does as little as a client can: its work is on the cores that are measured."""

    def __init__(self) -> None:
        self.tail = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-2048:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def stream(port: int, prompt: list[int], tokens: int) -> int:
    """One streamed completion over a bare socket; the tokens that `usage` says it had."""
    body = json.dumps(
        {
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    transport, reader = await asyncio.get_running_loop().create_connection(Reader, "127.0.0.1", port)
    transport.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    await reader.ended
    last = [line for line in reader.tail.split(b"\n") if line.startswith(b'data: {"')][-1]
    return int(json.loads(last[6:])["usage"]["completion_tokens"])


async def through_http(port: int, seed: int, streams: int, tokens: int) -> float:
    began = time.perf_counter()
    counts = await asyncio.gather(*[stream(port, prompt, tokens) for prompt in prompts(seed, streams)])
    return sum(counts) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model")
    parser.add_argument("--bare", action="store_true", help="the child process")
    args = parser.parse_args()
    if args.bare:
        uvloop.run(bare_engine(args.model))
        return

    from forebay.bench.intervals import median_interval
    from support.server import ServerProcess

    flags = ["--engine", "vllm", *(["--model", args.model] if args.model else [])]
    server = ServerProcess(Path("/tmp/forebay-bench.log"), flags).start(ready_timeout_s=180)
    bare = subprocess.Popen(
        [sys.executable, __file__, "--bare", *(["--model", args.model] if args.model else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "server")},
    )
    assert bare.stdin is not None
    assert bare.stdout is not None

    def answer() -> dict[str, Any]:
        for line in bare.stdout:  # type: ignore[union-attr]
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit("the bare engine ended")

    def ask_bare(seed: int, streams: int) -> float:
        order = json.dumps({"seed": seed, "streams": streams, "tokens": args.tokens})
        bare.stdin.write(order + "\n")  # type: ignore[union-attr]
        bare.stdin.flush()  # type: ignore[union-attr]
        result = answer()
        return float(result["tokens"]) / float(result["seconds"])

    try:
        answer()
        results = {}
        seed = 0
        for streams in args.streams:
            pairs = []
            for pair in range(args.pairs + 1):
                seed += 1
                measured = {}
                for side in ("bare", "http") if pair % 2 else ("http", "bare"):
                    measured[side] = (
                        ask_bare(seed, streams)
                        if side == "bare"
                        else uvloop.run(through_http(server.port, seed, streams, args.tokens))
                    )
                if pair:  # the first warms both up
                    pairs.append(measured)
            ratios = [pair["http"] / pair["bare"] for pair in pairs]
            results[str(streams)] = {
                "ratio": round(statistics.median(ratios), 3),
                "ratio_95": [round(end, 3) for end in median_interval(ratios)],
                "bare_tokens_per_s": round(statistics.median(pair["bare"] for pair in pairs), 1),
                "http_tokens_per_s": round(statistics.median(pair["http"] for pair in pairs), 1),
            }
        print(
            json.dumps(
                {
                    "benchmark": "http_over_bare",
                    "date": time.strftime("%Y-%m-%d"),
                    "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
                    "pairs": args.pairs,
                    "tokens": args.tokens,
                    "prompt_tokens": PROMPT_TOKENS,
                    "streams": results,
                }
            )
        )
    finally:
        bare.stdin.close()
        bare.wait(30)
        server.stop()


if __name__ == "__main__":
    main()
