"""What `bench serve` is to do: where, what, how fast, and what is kept of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forebay.bench.client import Target
from forebay.bench.datasets import DatasetOptions
from forebay.bench.figures import PERCENTILES
from forebay.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Step:
    """One load. `request_rate` is in sessions a second, infinite for all at once; None: no bound on concurrency."""

    num_prompts: int
    request_rate: float = math.inf
    max_concurrency: int | None = None

    @property
    def name(self) -> str:
        parts = [] if math.isinf(self.request_rate) else [f"rate{self.request_rate:g}"]
        parts += [] if self.max_concurrency is None else [f"conc{self.max_concurrency}"]
        return "-".join(parts) or "all"


@dataclass(frozen=True, slots=True)
class Plan:
    """`seed` differs from step to step, so that no step finds the prompts of another in a cache."""

    target: Target
    steps: Sequence[Step]
    dataset: DatasetOptions = field(default_factory=DatasetOptions)
    model: str | None = None
    stream: bool = True
    ignore_eos: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    burstiness: float = 1.0
    self_timed: bool = False
    num_warmups: int = 0
    percentiles: Sequence[float] = PERCENTILES
    slos_ms: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    label: str = "forebay-bench"
    metadata: Mapping[str, str] = field(default_factory=dict)
    keep_texts: bool = False


def make_steps(
    rates: Sequence[float], concurrencies: Sequence[int | None], nums_prompts: Sequence[int]
) -> tuple[Step, ...]:
    """Every rate with every bound; one number of prompts for all of them, or one each."""
    pairs = list(itertools.product(rates, concurrencies))
    nums = list(nums_prompts) * len(pairs) if len(nums_prompts) == 1 else list(nums_prompts)
    if len(nums) != len(pairs):
        raise ConfigurationError(f"--num-prompts: {len(pairs)} steps want one number, or {len(pairs)}.")
    steps = tuple(Step(num, rate, most) for num, (rate, most) in zip(nums, pairs, strict=True))
    if len({step.name for step in steps}) != len(steps):
        raise ConfigurationError("Two steps have the same rate and the same concurrency.")
    return steps
