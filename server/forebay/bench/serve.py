"""`bench serve`: one step of load after another on a server that runs already."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from forebay.bench.arrivals import arrival_times
from forebay.bench.client import Client, Target
from forebay.bench.datasets import make_sessions
from forebay.bench.datasets.session import Session
from forebay.bench.figures import figures
from forebay.bench.load import Form, run_load
from forebay.bench.outcome import Outcome
from forebay.bench.plan import Plan, Step
from forebay.bench.progress import Progress
from forebay.bench.quick import CpuShare
from forebay.errors import ConfigurationError

WARMUP_SEED = 1_000_003
"""Between the seed of a step and that of its warm-up, so that warm-up fills no cache with what is asked later."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A step that was run: `result` holds what is written to its file, without the lists of single requests."""

    step: Step
    result: dict[str, Any]
    outcomes: Sequence[Outcome]


async def run_plan(plan: Plan, on_step: Callable[[Ran], None] = lambda ran: None) -> list[Ran]:
    """Every step. Raises ConfigurationError where the server does not say what models it has and none is given, and for
    metadata that would hide a field of the results."""
    _check_metadata(plan)
    if plan.model is None:
        plan = replace(plan, model=await first_model(plan.target))
    ran = []
    for number, step in enumerate(plan.steps):
        ran.append(await run_step(plan, step, plan.seed + number))
        on_step(ran[-1])
    return ran


async def run_step(plan: Plan, step: Step, seed: int) -> Ran:
    """On connections of its own, after its warm-up."""
    form = Form(plan.model, plan.target.is_chat, plan.stream, plan.ignore_eos, plan.extra_body)
    sessions = _sessions(plan, step.num_prompts, seed)
    due_s = _due(plan, step, sessions, seed)
    client = Client(plan.target)
    num_cold = 0
    try:
        if plan.num_warmups:
            warm = _sessions(plan, plan.num_warmups, seed + WARMUP_SEED)
            warmed, _ = await run_load(client, form, warm, [0.0] * len(warm), max_concurrency=step.max_concurrency)
            num_cold = sum(outcome.failure is not None for outcome in warmed)
        num_prompts = sum(len(session.turns) for session in sessions)
        progress = Progress(step.name, num_prompts)
        share = CpuShare()
        outcomes, duration_s = await run_load(
            client,
            form,
            sessions,
            due_s,
            max_concurrency=step.max_concurrency,
            keep_text=plan.keep_texts,
            on_outcome=progress.count,
        )
        progress.close()
    finally:
        client.close()
    result = _described(plan, step, seed, num_prompts) | figures(outcomes, duration_s, plan.percentiles, plan.slos_ms)
    return Ran(step, result | {"num_warmups_failed": num_cold, "client_cpu_share": share.read()}, outcomes)


def latencies(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One value a request, in every result file. Seconds."""
    return {
        "latencies": [outcome.latency_s for outcome in outcomes],
        "queue_times": [outcome.queued_s for outcome in outcomes],
    }


def details(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One value a request: what `vllm bench serve --save-detailed` adds. Seconds."""
    return {
        "input_lens": [outcome.prompt_tokens or 0 for outcome in outcomes],
        "output_lens": [outcome.output_tokens or 0 for outcome in outcomes],
        "ttfts": [outcome.ttft_s or 0.0 for outcome in outcomes],
        "itls": [outcome.itls_s for outcome in outcomes],
        "start_times": [outcome.start_s for outcome in outcomes],
        "generated_texts": [outcome.text for outcome in outcomes],
        "errors": [f"{outcome.kind}: {outcome.message}" if outcome.failure else "" for outcome in outcomes],
    }


def _described(plan: Plan, step: Step, seed: int, num_prompts: int) -> dict[str, Any]:
    """The settings of the step, first in its file. `num_prompts`: how many the dataset had."""
    backend = "openai-chat" if plan.target.is_chat else "openai"
    return {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": backend,
        "backend": backend,
        "label": plan.label,
        "model_id": plan.model,
        "tokenizer_id": None,
        "num_prompts": num_prompts,
        "num_prompts_asked": step.num_prompts,
        **plan.metadata,
        "request_rate": "inf" if math.isinf(step.request_rate) else step.request_rate,
        "burstiness": plan.burstiness,
        "max_concurrency": step.max_concurrency,
        "dataset_name": plan.dataset.name,
        "stream": plan.stream,
        "seed": seed,
        "goodput_slos_ms": dict(plan.slos_ms),
    }


def _check_metadata(plan: Plan) -> None:
    own = {
        *_described(replace(plan, metadata={}), plan.steps[0], 0, 0),
        *figures([], 1.0, plan.percentiles, {"ttft": 1}),
    }
    own |= {"", "num_warmups_failed", "client_cpu_share", "environment", *latencies([]), *details([])}
    if taken := plan.metadata.keys() & own:
        raise ConfigurationError(f"--metadata: {taken.pop()!r} is no name for it: the results have one of their own.")


def _sessions(plan: Plan, num_prompts: int, seed: int) -> list[Session]:
    return make_sessions(replace(plan.dataset, num_prompts=num_prompts), seed, as_text=plan.target.is_chat)


def _due(plan: Plan, step: Step, sessions: Sequence[Session], seed: int) -> list[float]:
    if not plan.self_timed:
        return arrival_times(len(sessions), step.request_rate, plan.burstiness, random.Random(seed))
    times = [session.at_s for session in sessions if session.at_s is not None]
    if len(times) != len(sessions):
        raise ConfigurationError("--self-timed: the dataset does not say when each request came.")
    return times


async def first_model(target: Target) -> str:
    """Of those that the server says. Raises ConfigurationError where it says none."""
    client = Client(target)
    try:
        found = await client.fetch("/v1/models")
        return str(found["data"][0]["id"])
    except (KeyError, IndexError, TypeError) as exc:
        raise ConfigurationError(f"{target.base_url}/v1/models names no model: give --model.") from exc
    finally:
        client.close()
