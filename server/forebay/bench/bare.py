"""The bare engine in a process of its own: no HTTP, no keys, no limits, no ledger. For vLLM that is its AsyncLLM.

`python -m forebay.bench.bare ENGINE [MODEL]` says `{"vocab_size"}` when it is ready, then answers each line
`{"prompts", "max_tokens"}`, token ids that are asked all at once, with `{"tokens", "seconds"}`. Other lines are
libraries'.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import uvloop

from forebay.engines.auto import build_engine, choose_engine
from forebay.engines.base import EngineInfo
from forebay.engines.model_source import resolve_model
from forebay.settings import Settings
from forebay.types import GenerationRequest, Prompt, Sampling

Ask = Callable[[GenerationRequest], Awaitable[int]]
"""How many tokens the answer had."""
CLOSE_S = 5.0


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[tuple[EngineInfo, Ask]]:
    """The engine that these settings choose, as the server starts it."""
    choice = choose_engine(settings)
    if choice.engine == "vllm":
        async with _vllm(settings, choice.device) as found:
            yield found
        return
    engine = build_engine(settings, choice)
    await engine.start()

    async def ask(request: GenerationRequest) -> int:
        return sum([len(delta.token_ids) async for delta in engine.generate(request)])

    yield engine.info, ask
    await engine.close(CLOSE_S)


@asynccontextmanager
async def _vllm(settings: Settings, device: str) -> AsyncIterator[tuple[EngineInfo, Ask]]:
    """Its outputs come as the server asks for them: what is new, merged where the consumer is slow."""
    from forebay.engines.vllm_impl.convert import sampling_params
    from forebay.engines.vllm_impl.launch import Launcher
    from forebay.engines.vllm_impl.names import TOKENS_INPUT, load
    from forebay.engines.vllm_impl.stats import EngineCounters

    launcher = Launcher(settings, resolve_model(settings, lambda line: None), device, EngineCounters())
    launched = await launcher.launch()

    async def ask(request: GenerationRequest) -> int:
        prompt = load(TOKENS_INPUT)(list(request.prompt.token_ids))
        outputs = launched.llm.generate(prompt, sampling_params(request, 1), request.request_id)
        return sum([len(output.outputs[0].token_ids) async for output in outputs])

    yield launched.info, ask
    await launcher.close(CLOSE_S)


async def serve(settings: Settings) -> None:
    """Until standard input ends."""
    numbers = itertools.count()
    async with started(settings) as (info, ask):
        _say(vocab_size=info.vocab_size)
        while line := await asyncio.to_thread(sys.stdin.readline):
            job: dict[str, Any] = orjson.loads(line)
            sampling = Sampling(max_tokens=job["max_tokens"], temperature=0.0, ignore_eos=True)
            requests = [
                GenerationRequest(f"bare-{next(numbers)}", Prompt(tuple(prompt)), sampling) for prompt in job["prompts"]
            ]
            began = time.perf_counter()
            counts = await asyncio.gather(*map(ask, requests))
            _say(tokens=sum(counts), seconds=time.perf_counter() - began)


def _say(**figures: float) -> None:
    print(orjson.dumps(figures).decode(), flush=True)


if __name__ == "__main__":  # vLLM's processes import this module again
    given: dict[str, Any] = dict(zip(("engine", "model"), sys.argv[1:], strict=False))
    uvloop.run(serve(Settings(**given)))
