"""`bench cache`: questions that come again, word for word or reworded, and what the server's cache makes of them."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from forebay.bench.client import Client, Target
from forebay.bench.figures import percentile
from forebay.bench.outcome import Outcome
from forebay.bench.serve import first_model
from forebay.errors import ConfigurationError

Kind = Literal["new", "repeated", "reworded"]
"""Nobody has asked it in this run; in these very words; in other words."""
KINDS: tuple[Kind, ...] = ("new", "repeated", "reworded")
STORED = ("hit", "coalesced")
PERCENTILES = (50, 90, 99)

ACTS = ("reset", "renew", "cancel", "print", "move", "insure", "clean", "order", "close", "open", "check", "repair")
THINGS = (
    *("router", "invoice", "password", "parcel", "printer", "contract", "holiday", "meter", "licence", "account"),
    *("boiler", "garden", "bicycle", "ticket", "window", "passport", "phone", "carpet", "heating", "subscription"),
)
WORDINGS = (
    "How do I {act} my {thing}?",
    "How can I {act} my {thing}?",
    "Hello, how do I {act} my {thing}, please?",
    "What do I have to do to {act} my {thing}?",
    "What is the way to {act} my {thing}?",
    "Tell me how to {act} my {thing}.",
    "I want to {act} my {thing}. How is that done?",
    "Could you explain how I {act} my {thing}? Thanks!",
)
MOST_QUESTIONS = len(ACTS) * len(THINGS)


@dataclass(frozen=True, slots=True)
class Replay:
    """`num_requests` for `num_questions`, the k-th of them with the weight k^-`skew` (Zipf); a share of `reworded`
    requests is put in any of eight ways, the others in the question's usual one. Raises ConfigurationError."""

    num_requests: int = 2000
    num_questions: int = 200
    skew: float = 1.0
    reworded: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.num_questions <= MOST_QUESTIONS:
            raise ConfigurationError(f"--num-questions must be 1 to {MOST_QUESTIONS}.")
        if not 0 <= self.reworded <= 1:
            raise ConfigurationError("--reworded must be 0 to 1.")

    def texts(self) -> list[tuple[str, Kind]]:
        """What is asked, in order, and what it is to what was asked before it."""
        rng = random.Random(self.seed)
        pool = rng.sample(list(itertools.product(ACTS, THINGS)), self.num_questions)
        usual = [rng.choice(WORDINGS) for _ in pool]
        weights = [(rank + 1) ** -self.skew for rank in range(self.num_questions)]
        known: set[int] = set()
        said: set[str] = set()
        texts: list[tuple[str, Kind]] = []
        for number in rng.choices(range(self.num_questions), weights, k=self.num_requests):
            wording = rng.choice(WORDINGS) if rng.random() < self.reworded else usual[number]
            text = wording.format(act=pool[number][0], thing=pool[number][1])
            texts.append((text, "repeated" if text in said else "reworded" if number in known else "new"))
            known.add(number)
            said.add(text)
        return texts


@dataclass(frozen=True, slots=True)
class Load:
    """How it is asked. `extra` is merged into each body and wins."""

    model: str | None = None
    max_tokens: int = 128
    max_concurrency: int = 8
    stream: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


async def run_replay(
    target: Target, replay: Replay, load: Load, on_outcome: Callable[[Outcome], None] = lambda outcome: None
) -> dict[str, Any]:
    """Every request of a run begins with the same words of the system, which no other run says: so nothing that was
    stored before is found, and a question that is new and yet answered from the cache was answered with another's."""
    if load.model is None:
        load = replace(load, model=await first_model(target))
    asked, places, client = replay.texts(), asyncio.Semaphore(load.max_concurrency), Client(target)
    system = f"You answer briefly. This is run {time.time_ns()}."
    began = time.perf_counter()

    async def ask(text: str) -> Outcome:
        async with places:
            outcome = await client.ask(_body(system, text, load))
        on_outcome(outcome)
        return outcome

    try:
        outcomes = await asyncio.gather(*(ask(text) for text, _ in asked))
    finally:
        client.close()
    return replay_figures([kind for _, kind in asked], outcomes, time.perf_counter() - began)


def replay_figures(kinds: Sequence[Kind], outcomes: Sequence[Outcome], duration_s: float) -> dict[str, Any]:
    """Times in milliseconds. Tokens saved: those of answers that no engine was asked for."""
    pairs = [(kind, outcome) for kind, outcome in zip(kinds, outcomes, strict=True) if outcome.failure is None]
    counts = Counter((kind, outcome.cache) for kind, outcome in pairs)
    by_kind = {kind: {cache: num for (each, cache), num in counts.items() if each == kind} for kind in KINDS}
    stored = [outcome for _, outcome in pairs if outcome.cache in STORED]
    generated = [outcome for _, outcome in pairs if outcome.cache not in STORED]
    return {
        "duration": duration_s,
        "completed": len(pairs),
        "failed": len(outcomes) - len(pairs),
        "error_counts": dict(Counter(outcome.kind for outcome in outcomes if outcome.failure is not None)),
        "request_throughput": len(pairs) / duration_s,
        "hit_rate": len(stored) / max(1, len(pairs)),
        "cache_counts": dict(Counter(outcome.cache or "none" for _, outcome in pairs)),
        **{f"{kind}_counts": found for kind, found in by_kind.items()},
        **{f"{kind}_hit_rate": _share(found) for kind, found in by_kind.items() if kind != "new"},
        "wrongly_answered": counts["new", "hit"],
        "prompt_tokens_saved": sum(outcome.prompt_tokens or 0 for outcome in stored),
        "completion_tokens_saved": sum(outcome.output_tokens or 0 for outcome in stored),
        "completion_tokens_generated": sum(outcome.output_tokens or 0 for outcome in generated),
        **_latencies("hit", [outcome for _, outcome in pairs if outcome.cache == "hit"]),
        **_latencies("miss", generated),
    }


def _body(system: str, text: str, load: Load) -> dict[str, Any]:
    """At temperature 0, or nothing of it may be stored."""
    body: dict[str, Any] = {} if load.model is None else {"model": load.model}
    body["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    body |= {"temperature": 0, "max_tokens": load.max_tokens}
    if load.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body | dict(load.extra)


def _share(counts: Mapping[str, int]) -> float:
    return sum(counts.get(cache, 0) for cache in STORED) / max(1, sum(counts.values()))


def _latencies(name: str, outcomes: Sequence[Outcome]) -> dict[str, float]:
    e2el = sorted(outcome.latency_s for outcome in outcomes)
    ttft = sorted(outcome.ttft_s for outcome in outcomes if outcome.ttft_s is not None)
    return {
        f"p{percent}_{metric}_{name}_ms": 1000 * percentile(ordered, percent)
        for metric, ordered in (("ttft", ttft), ("e2el", e2el))
        for percent in PERCENTILES
        if ordered
    }
