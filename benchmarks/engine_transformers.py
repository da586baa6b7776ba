"""Forebay's Transformers engine against `model.generate` with a static batch of the same size.

Both run in one process, on the same weights, number format and threads, and are idle while the other is measured. They
are measured in turn, round by round, so that what else the machine does falls on both: read the ratios, which compare
within a round, and not the tokens a second. Prints one JSON object.

    python benchmarks/engine_transformers.py [--model DIRECTORY] [--rounds 7] [--streams 1,8,32] [--dtype auto]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from typing import Any

import structlog
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from forebay.engines.model_source import resolve_model
from forebay.engines.transformers_impl import TransformersEngine
from forebay.settings import Settings
from forebay.types import GenerationRequest, Prompt, Sampling

NUM_TOKENS = 64
NUM_PROMPT_TOKENS = 32
_ids = itertools.count()


def prompts(num_streams: int) -> list[list[int]]:
    return [
        [100 + (stream * 7919 + position * 104729) % 20000 for position in range(NUM_PROMPT_TOKENS)]
        for stream in range(num_streams)
    ]


async def engine_rate(engine: TransformersEngine, num_streams: int) -> float:
    """Tokens a second of all streams together."""
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)

    async def one(prompt: list[int]) -> int:
        request = GenerationRequest(f"stream-{next(_ids)}", Prompt(tuple(prompt)), sampling)
        return sum([len(delta.token_ids) async for delta in engine.generate(request)])

    began = time.perf_counter()
    counts = await asyncio.gather(*(one(prompt) for prompt in prompts(num_streams)))
    assert counts == [NUM_TOKENS] * num_streams
    return sum(counts) / (time.perf_counter() - began)


def static_rate(model: Any, num_streams: int) -> float:
    ids = torch.tensor(prompts(num_streams), device=model.device)
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0
    )
    began = time.perf_counter()
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    assert output.shape == (num_streams, NUM_PROMPT_TOKENS + NUM_TOKENS)
    return num_streams * NUM_TOKENS / (time.perf_counter() - began)


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    ratios = sorted(mine / other for mine, other in zip(ours, theirs, strict=True))
    return {
        "tokens_per_s": {"engine": round(statistics.median(ours), 1), "generate": round(statistics.median(theirs), 1)},
        "ratio": {
            "median": round(statistics.median(ratios), 3),
            "min": round(ratios[0], 3),
            "max": round(ratios[-1], 3),
        },
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="a local directory; the demo model otherwise")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    given: dict[str, Any] = {
        "_env_file": None,
        "model": arguments.model,
        "dtype": arguments.dtype,
        "cpu_threads": arguments.threads,
    }
    settings = Settings(**given)
    source = resolve_model(settings, lambda line: print(line, file=sys.stderr))
    engine = TransformersEngine(settings, source, arguments.device)
    await engine.start()
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.path_or_id, dtype=getattr(torch, engine.info.dtype), local_files_only=source.local
    )
    model.to(arguments.device).eval()
    model.generation_config.eos_token_id = None  # every answer has its full length, as `ignore_eos` gives the engine's
    streams = [int(count) for count in arguments.streams.split(",")]
    rates: dict[int, tuple[list[float], list[float]]] = {count: ([], []) for count in streams}
    for count in streams:
        await engine_rate(engine, count)
        static_rate(model, count)
    for number in range(arguments.rounds):
        for count in streams:
            ours, theirs = rates[count]
            if number % 2:
                theirs.append(static_rate(model, count))
            ours.append(await engine_rate(engine, count))
            if not number % 2:
                theirs.append(static_rate(model, count))
    info = engine.info
    await engine.close(10)
    result = {
        "conditions": {
            "model": source.name,
            "device": info.device,
            "dtype": info.dtype,
            "threads": torch.get_num_threads(),
            "prompt_tokens": NUM_PROMPT_TOKENS,
            "new_tokens": NUM_TOKENS,
            "rounds": arguments.rounds,
            "load_average": round(os.getloadavg()[0], 1),
        },
        "streams": {str(count): compare(*rates[count]) for count in streams},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
