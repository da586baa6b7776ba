"""Forebay's vLLM engine against bare vLLM with its own defaults, at 1, 4, 16 and 32 streams.

Each contender runs in a process of its own and is idle while another is measured. They are measured in turn, round by
round, so that what else the machine does falls on all of them: read the ratios, which compare within a round, and not
the tokens a second. Prints one JSON object.

    python benchmarks/engine_vllm.py --model DIRECTORY [--rounds 5] [--streams 1,4,16,32] [--contenders forebay,eager]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

NUM_TOKENS = 64
NUM_PROMPT_TOKENS = 32
KV_CACHE_MIB = 512
DESCRIPTIONS = {
    "forebay": "VllmEngine as it configures itself",
    "eager": "bare AsyncLLM, vLLM's defaults for the CPU but enforce_eager",
    "compiled": "bare AsyncLLM, vLLM's defaults for the CPU",
}
Stream = Callable[[int], Awaitable[int]]


def prompt_of(stream: int) -> list[int]:
    """Token ids that share no prefix with another stream's, so that nothing is answered from the prefix cache."""
    return [100 + (stream * 7919 + position * 104729) % 20000 for position in range(NUM_PROMPT_TOKENS)]


async def forebay_streams(model: str) -> AsyncIterator[Stream]:
    from forebay.engines.model_source import ModelSource
    from forebay.engines.vllm_impl import VllmEngine
    from forebay.settings import Settings
    from forebay.types import GenerationRequest, Prompt, Sampling

    given: dict[str, Any] = {"_env_file": None, "kv_cache_memory_mib": KV_CACHE_MIB}
    settings = Settings(**given)
    engine = VllmEngine(settings, ModelSource(model, "model", None, local=True), "cpu")
    await engine.start()
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)

    async def one(stream: int) -> int:
        request = GenerationRequest(f"stream-{stream}", Prompt(tuple(prompt_of(stream))), sampling)
        return sum([len(delta.token_ids) async for delta in engine.generate(request)])

    yield one
    await engine.close(10)


async def bare_streams(model: str, *, eager: bool) -> AsyncIterator[Stream]:
    os.environ |= {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    args = AsyncEngineArgs(model=model, enforce_eager=eager, kv_cache_memory_bytes=KV_CACHE_MIB << 20)
    engine = AsyncLLM.from_engine_args(args)

    async def one(stream: int) -> int:
        sampling = SamplingParams(
            max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True, output_kind=RequestOutputKind.DELTA
        )
        outputs = engine.generate(tokens_input(prompt_of(stream)), sampling, f"stream-{stream}")
        return sum([len(output.outputs[0].token_ids) async for output in outputs])

    yield one
    engine.shutdown()


async def serve(contender: str, model: str) -> None:
    """The contender's process: one JSON line when it is ready, then one for each number of streams it reads."""
    began = time.perf_counter()
    streams = forebay_streams(model) if contender == "forebay" else bare_streams(model, eager=contender == "eager")
    async for one in streams:
        await one(-1)
        print(json.dumps({"start_s": round(time.perf_counter() - began, 1)}), flush=True)
        next_stream = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            num_streams = int(line)
            began = time.perf_counter()
            tokens = await asyncio.gather(*(one(next_stream + index) for index in range(num_streams)))
            next_stream += num_streams
            print(json.dumps({"tokens_per_s": sum(tokens) / (time.perf_counter() - began)}), flush=True)


class Contender:
    """A process that is measured on request. Its answers are the JSON lines; libraries print others between."""

    def __init__(self, name: str, model: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, __file__, "--serve", name, "--model", model]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | (environment or {}),
        )
        self.start_s: float = self._answer()["start_s"]

    def measure(self, num_streams: int) -> float:
        """Tokens a second of all streams together."""
        assert self._process.stdin is not None
        print(num_streams, file=self._process.stdin, flush=True)
        tokens_per_s: float = self._answer()["tokens_per_s"]
        return tokens_per_s

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise SystemExit(f"the contender ended: exit code {self._process.wait()}")


def compare(contenders: dict[str, Contender], streams: list[int], rounds: int) -> dict[str, Any]:
    """Medians, and the median over the rounds of the first contender's tokens a second over each other's."""
    rates: dict[int, dict[str, list[float]]] = {count: {name: [] for name in contenders} for count in streams}
    for number in range(rounds):
        for count in streams:
            names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
            for name in names:
                rates[count][name].append(contenders[name].measure(count))
    first, *others = contenders
    return {
        str(count): {
            "tokens_per_s": {name: round(statistics.median(values), 1) for name, values in by_name.items()},
            "ratio": {other: spread(by_name[first], by_name[other]) for other in others},
        }
        for count, by_name in rates.items()
    }


def spread(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return {name: round(of(ratios), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,4,16,32")
    parser.add_argument("--contenders", default="forebay,eager,compiled", help=", ".join(DESCRIPTIONS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.model))
        return
    contenders = {name: Contender(name, options.model) for name in options.contenders.split(",")}
    load_before = os.getloadavg()[0]
    results = compare(contenders, [int(count) for count in options.streams.split(",")], options.rounds)
    report = {
        "contenders": {name: DESCRIPTIONS[name] for name in contenders},
        "start_s": {name: contender.start_s for name, contender in contenders.items()},
        "cores": os.cpu_count(),
        "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "rounds": options.rounds,
        "streams": results,
    }
    for contender in contenders.values():
        contender.close()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
