"""Crowds of clients that ask, are refused, and come back when they were told to, in simulated minutes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forebay.errors import RateLimited
from forebay.tenants.guard import Guard
from forebay.tenants.local_limiter import LocalLimiter
from forebay.types import Caller, Policy
from support.virtual_time import VirtualLoop, simulate

MINUTES = 10
UNLIMITED = Policy()
Draw = Callable[[random.Random], Any]


@dataclass(frozen=True)
class Crowd:
    """`clients` ask again as soon as they were served, and come back as told; `passers_by` a second never come back.

    `size`: prompt and completion tokens; `lasts_ms`: a request; `uses`: the part of its tokens that it comes to.
    """

    key: Policy
    clients: int
    tenant: Policy = UNLIMITED
    keys: int = 1
    passers_by: float = 0.0
    size: Draw = lambda r: (50, 50)
    lasts_ms: Draw = lambda r: 200
    uses: Draw = lambda r: 1.0
    alike: bool = False
    """All send the very same bytes."""


@dataclass
class Simulation:
    crowd: Crowd
    seed: int = 1
    loop: VirtualLoop = field(default_factory=VirtualLoop)
    told: int = 0
    kept: int = 0
    admitted: int = 0
    tokens: int = 0
    busy_ms: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.guard = Guard(LocalLimiter(self.loop.ms), wall_ms=self.loop.ms, steady_ms=self.loop.ms)
        crowd = self.crowd
        self.callers = [
            Caller("one", str(key), key_policy=crowd.key, tenant_policy=crowd.tenant) for key in range(crowd.keys)
        ]

    def run(self) -> Simulation:
        clients = (self.client(number) for number in range(self.crowd.clients))
        simulate(self.loop, MINUTES * 60, *clients, *([self.passers_by()] if self.crowd.passers_by else []))
        return self

    async def client(self, number: int) -> None:
        await asyncio.sleep(self.random.random())
        while True:
            await self.request(number, comes_back=True)
            await self.on_the_way()

    async def passers_by(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.random.expovariate(self.crowd.passers_by))
                group.create_task(self.request(self.random.randrange(self.crowd.keys), comes_back=False))

    async def on_the_way(self) -> None:
        await asyncio.sleep(self.random.uniform(0.002, 0.06))

    async def request(self, number: int, *, comes_back: bool) -> None:
        crowd, as_told = self.crowd, False
        prompt, completion = crowd.size(self.random)
        fingerprint = 0 if crowd.alike else self.random.getrandbits(32)
        while True:
            try:
                hold = await self.guard.admit(
                    self.callers[number % crowd.keys],
                    prompt_tokens=prompt,
                    max_completion_tokens=completion,
                    can_clamp=False,
                    cost=None,
                    fingerprint=fingerprint,
                )
            except RateLimited as exc:
                self.told += as_told
                if not comes_back:
                    return
                as_told = True
                await asyncio.sleep(exc.retry_after_s or 0)
                await self.on_the_way()
            else:
                break
        self.told += as_told
        self.kept += as_told
        self.admitted += 1
        lasts_ms = crowd.lasts_ms(self.random)
        await asyncio.sleep(lasts_ms / 1000)
        used = round((prompt + completion) * crowd.uses(self.random))
        hold.settle(used, 0)
        self.tokens += used
        self.busy_ms += lasts_ms


def mixed(r: random.Random) -> tuple[int, int]:
    return r.choice([10, 100, 1000]), r.choice([16, 256, 1024])


def around(mean_ms: float) -> Draw:
    """Exponentially distributed: mostly short, some very long."""
    return lambda r: r.expovariate(1 / mean_ms)


CROWDS = {
    "requests": Crowd(Policy(60), 20),
    "many requests": Crowd(Policy(600), 100),
    "requests that are all alike": Crowd(Policy(60), 20, alike=True),
    "requests alike, passers-by": Crowd(Policy(60), 20, alike=True, passers_by=0.5),
    "requests, passers-by": Crowd(Policy(60), 20, passers_by=1),
    "tokens": Crowd(Policy(None, 20_000), 30, size=mixed),
    "tokens, passers-by": Crowd(Policy(None, 20_000), 30, size=mixed, passers_by=1),
    "tokens, half unused": Crowd(Policy(None, 20_000), 30, size=mixed, uses=lambda r: r.random()),
    "requests and tokens, key and tenant": Crowd(
        Policy(30, 20_000), 40, Policy(60, 40_000), keys=4, size=mixed, passers_by=0.5
    ),
    "places": Crowd(Policy(max_concurrency=8), 40, lasts_ms=lambda r: 2000),
    "places, uneven": Crowd(Policy(max_concurrency=8), 40, lasts_ms=around(2000)),
    "one place, uneven": Crowd(Policy(max_concurrency=1), 6, lasts_ms=around(2000)),
    "places, passers-by": Crowd(Policy(max_concurrency=4), 20, lasts_ms=around(2000), passers_by=1),
    "everything": Crowd(
        Policy(100, 60_000, 4),
        60,
        Policy(200, 120_000, 8),
        keys=4,
        size=mixed,
        lasts_ms=around(2000),
        uses=lambda r: r.random(),
        passers_by=0.2,
    ),
}
