"""The load: sessions begin when they are due, a bound on how many run, every outcome kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from forebay.bench.client import Client
from forebay.bench.datasets.session import Session, Turn
from forebay.bench.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Form:
    """What every request of a run has in common. `extra` is merged into each body and wins."""

    model: str | None
    is_chat: bool
    stream: bool = True
    ignore_eos: bool = False
    extra: Mapping[str, Any] | None = None

    def body(self, said: Sequence[str], turn: Turn) -> dict[str, Any]:
        """`said`: questions and answers before this turn, in turns."""
        body: dict[str, Any] = {} if self.model is None else {"model": self.model}
        if self.is_chat:
            roles = ("user", "assistant")
            messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
            body["messages"] = [*messages, {"role": "user", "content": turn.prompt}]
        elif said:
            body["prompt"] = "\n".join([*said, str(turn.prompt)])
        else:
            body["prompt"] = turn.prompt
        body["max_tokens"] = turn.max_tokens
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        return {**body, **(self.extra or {})}


async def run_load(
    client: Client,
    form: Form,
    sessions: Sequence[Session],
    due_s: Sequence[float],
    *,
    max_concurrency: int | None = None,
    keep_text: bool = False,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Outcome], float]:
    """(outcomes in the order in which sessions were due, seconds that the run took).

    A session holds one of `max_concurrency` places from its first request to its last; how long its first request
    waited for it is `queued_s`. A request that fails ends its session. Times of outcomes count from the run's start.
    """
    places = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()
    began = time.perf_counter()

    async def run(session: Session) -> list[Outcome]:
        ready = time.perf_counter()
        async with places:
            queued_s = time.perf_counter() - ready
            outcomes: list[Outcome] = []
            said: list[str] = []
            for turn in session.turns:
                needs_text = len(session.turns) > 1
                outcome = await client.ask(form.body(said, turn), keep_text=keep_text or needs_text)
                outcome.queued_s, queued_s = queued_s, 0.0
                outcome.start_s -= began
                outcomes.append(outcome)
                on_outcome(outcome)
                if outcome.failure is not None:
                    break
                said += [str(turn.prompt), outcome.text]
            return outcomes

    tasks = []
    try:
        for session, at_s in zip(sessions, due_s, strict=True):
            if (wait_s := began + at_s - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            tasks.append(asyncio.create_task(run(session)))
        outcomes = [outcome for ran in await asyncio.gather(*tasks) for outcome in ran]
    finally:
        for task in tasks:
            task.cancel()
    return outcomes, time.perf_counter() - began
