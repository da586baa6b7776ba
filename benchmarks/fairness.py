"""What the fair queue brings a newcomer, and what it costs in throughput.

1. `newcomer`: through `forebay serve`, one key submits 200 long jobs; another key's chats, one after another, are timed
   to their first token, on the idle engine and beside the jobs, with the engine's step time of the same seconds.
2. `throughput`: one engine in this process serves one key's jobs, in turn handed over all at once (`direct`), through
   the fair queue without and with kept slots, and with slots of look-ahead: tokens a second, and as shares of
   `direct` of the same round.
3. `queue`: microseconds that the queue itself takes for a request, 2,000 waiting.

Prints one JSON object.

    python benchmarks/fairness.py [--engine vllm] [--model DIR] [--jobs 200] [--rounds 5]
                                  [--parts newcomer throughput queue]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any, get_args

import structlog
import uvloop

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "server"), str(ROOT / "tests")]

from forebay.engines.base import Engine  # noqa: E402 - after the path
from forebay.observe.record import RequestRecord  # noqa: E402 - after the path
from forebay.queued import Line  # noqa: E402 - after the path
from forebay.services import Services, build_services  # noqa: E402 - after the path
from forebay.settings import Settings  # noqa: E402 - after the path
from forebay.tenants.fairness import FairQueue  # noqa: E402 - after the path
from forebay.types import Caller, GenerationRequest, Priority, Prompt, Sampling  # noqa: E402 - after the path
from forebay.work import Work  # noqa: E402 - after the path
from support.newcomer import time_newcomer  # noqa: E402  (the tests' support lies beside this directory)
from support.server import ServerProcess  # noqa: E402 - after the path

HOG, CHAT = "hog-0123456789abcdef", "chat-0123456789abcdef"
NUM_CHATS = 20
PROMPT_TOKENS, SHORTEST, LONGEST = 32, 32, 96
ALL_AT_ONCE = 1 << 30


async def newcomer(engine: str, model: str | None, num_jobs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--engine", engine, *(["--model", model] if model else [])]
        server = ServerProcess(Path(folder) / "log", flags, {"FOREBAY_API_KEYS": f"{HOG},{CHAT}"})
        server.start(ready_timeout_s=300)
        try:
            timed = await time_newcomer(server.url, HOG, CHAT, num_jobs=num_jobs, num_chats=NUM_CHATS)
        finally:
            server.stop()
    return {
        "jobs": num_jobs,
        "running": timed.running,
        "waiting": timed.waiting,
        "step_ms": round(1000 * timed.step_s, 1),
        "ttft_ms": {"idle": in_ms(timed.idle), "beside_the_jobs": in_ms(timed.beside)},
        "steps_more_than_idle": {
            "median": round(statistics.median(timed.extra_steps), 2),
            "p90": round(timed.extra_steps[int(0.9 * NUM_CHATS)], 2),
            "max": round(timed.extra_steps[-1], 2),
        },
    }


def in_ms(seconds: list[float]) -> dict[str, float]:
    return {name: round(1000 * of(seconds), 1) for name, of in (("median", statistics.median), ("max", max))}


async def throughput(engine: str, model: str | None, num_jobs: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"_env_file": None, "engine": engine, "model": model}
        services = build_services(Settings(**given, lazy_load=True, data_dir=Path(folder)))
        services.begin()
        try:
            num_slots = (await services.host.engine()).info.num_slots
            auto = FairQueue(num_slots=lambda: num_slots, num_kept=None, num_open=lambda: 0).num_kept
            modes = {
                "direct": (ALL_AT_ONCE, 0),
                "fair, none kept": (num_slots, 0),
                f"fair, {auto} kept (default)": (num_slots, auto),
                "fair, none kept, 2 ahead": (num_slots + 2, 0),
            }
            rates: dict[str, list[float]] = {name: [] for name in modes}
            await tokens_per_s(services, modes["direct"], num_jobs, seed=0)
            for number in range(rounds):
                for name in list(modes)[:: 1 if number % 2 else -1]:
                    rates[name].append(await tokens_per_s(services, modes[name], num_jobs, seed=1 + number))
        finally:
            await services.close()
    return {
        "slots": num_slots,
        "jobs": num_jobs,
        "tokens_a_job": f"{SHORTEST} to {LONGEST}",
        "rounds": rounds,
        "modes": {
            name: {
                "tokens_per_s": round(statistics.median(values), 1),
                "of_direct": spread([one / other for one, other in zip(values, rates["direct"], strict=True)]),
            }
            for name, values in rates.items()
        },
    }


def spread(ratios: list[float]) -> dict[str, float]:
    return {name: round(of(ratios), 3) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


async def tokens_per_s(services: Services, mode: tuple[int, int], num_jobs: int, *, seed: int) -> float:
    slots, kept = mode
    pipeline = services.pipeline
    queue = FairQueue(num_slots=lambda: slots, num_kept=kept, num_open=services.host.num_sequences)
    pipeline._line = Line(queue, b"bench")  # noqa: SLF001 - queues take turns on one engine
    rng = random.Random(seed)
    caller = Caller("bench", "hog")

    async def job(number: int) -> int:
        prompt = Prompt(tuple(rng.randrange(100, 400) for _ in range(PROMPT_TOKENS)))
        sampling = Sampling(max_tokens=rng.randint(SHORTEST, LONGEST), temperature=0.0, ignore_eos=True)
        name = f"{time.time_ns():x}-{number}"

        async def prepare(engine: Engine) -> Work:
            return Work([GenerationRequest(name, prompt, sampling)])

        generation = await pipeline.start(caller, RequestRecord(name, "POST", model="bench"), 1, prepare)
        async with aclosing(generation):
            return sum([len(delta.token_ids) async for delta in generation])

    began = time.perf_counter()
    tokens = await asyncio.gather(*(job(number) for number in range(num_jobs)))
    return sum(tokens) / (time.perf_counter() - began)


async def queue_cost(
    num_keys: int, priority: Priority = "interactive", num_waiting: int = 2000, num_slots: int = 64
) -> dict[str, float]:
    """A request's whole way (join, turn, 50 tokens counted, end), the queue staying as long as it is."""
    queue: FairQueue = FairQueue(num_slots=lambda: num_slots, num_kept=4, num_open=lambda: queue.num_running)
    callers = [Caller("t", f"key {number}", priority=priority) for number in range(num_keys)]
    rng = random.Random(0)

    def ask() -> Any:
        return queue.join(rng.choice(callers), 1, rng.randrange(1, 1000))

    turns = [ask() for _ in range(num_slots + num_waiting)]
    running = [turn for turn in turns if turn.num_slots]
    waiting = [turn for turn in turns if not turn.num_slots]
    num_done, spent = 0, 0.0
    while num_done < 20_000:
        began = time.perf_counter()
        for turn in running:
            for _ in range(50):
                turn.generated(1)
            turn.ended()
            turn.leave()
        asked = [ask() for _ in running]
        spent += time.perf_counter() - began
        num_done += len(running)
        waiting += asked
        running = [turn for turn in waiting if turn.num_slots]
        waiting = [turn for turn in waiting if not turn.num_slots]
        await asyncio.sleep(0)
    counting = 50 * await counting_s()
    return {
        "us_a_request": round(1e6 * spent / num_done, 2),
        "of_it_counting_50_tokens_us": round(1e6 * counting, 2),
    }


async def counting_s() -> float:
    queue = FairQueue(num_slots=lambda: 1, num_kept=0, num_open=lambda: 1)
    turn = queue.join(Caller("t", "key"), 1, 1)
    began = time.perf_counter()
    for _ in range(100_000):
        turn.generated(1)
    return (time.perf_counter() - began) / 100_000


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {
        "benchmark": "fairness",
        "date": time.strftime("%Y-%m-%d"),
        "engine": options.engine,
        "cores": os.cpu_count(),
        "load_average_before": round(os.getloadavg()[0], 1),
    }
    if "queue" in options.parts:
        result["queue"] = {
            f"{num_keys} keys, {priority}": await queue_cost(num_keys, priority)
            for priority in get_args(Priority)
            for num_keys in (1, 10, 200, 2000)
        }
    if "newcomer" in options.parts:
        result["newcomer"] = await newcomer(options.engine, options.model, options.jobs)
    if "throughput" in options.parts:
        result["throughput"] = await throughput(options.engine, options.model, options.jobs, options.rounds)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--model")
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["queue", "newcomer", "throughput"])
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    print(json.dumps(uvloop.run(measure(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
