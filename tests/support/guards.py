"""Guards for tests: alone or sharing a Redis, by clocks that tests set."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from forebay.errors import RateLimited
from forebay.stores.database import Database
from forebay.stores.redis_impl.link import RedisLink
from forebay.tenants.ask import Hold
from forebay.tenants.conversation import Conversation
from forebay.tenants.fleet import Fleet
from forebay.tenants.grants import Grants
from forebay.tenants.guard import NUM_READY, Guard
from forebay.tenants.local_limiter import LocalLimiter
from forebay.tenants.shared_limiter import SharedLimiter
from forebay.types import Budget, Caller, Policy

DAY_MS = 86_400_000
NOON = 1_795_262_400_000
"""Saturday, 21 November 2026, 12:00 UTC."""

_prints = count(1)


@dataclass
class Clock:
    """Milliseconds. `wall` may jump, `steady` only goes on."""

    wall: int = NOON
    steady: int = 1_000_000

    def forward(self, seconds: float) -> None:
        self.wall += round(seconds * 1000)
        self.steady += round(seconds * 1000)


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def local_guard(clock: Clock, num_ready: int = NUM_READY) -> Guard:
    limiter = LocalLimiter(lambda: clock.steady)
    return Guard(limiter, wall_ms=lambda: clock.wall, steady_ms=lambda: clock.steady, num_ready=num_ready)


def let_rest(guard: Guard) -> None:
    """Others come, as they do; whoever may rest then does, where the guard keeps nobody ready."""
    for _ in range(2 * guard.parties.num_awake + 2):
        guard.peek(caller(key_id=f"other {next(_prints)}", of="others"))


@dataclass
class Replica:
    """One server's part in what is shared."""

    guard: Guard
    conversation: Conversation
    database: Database
    fleet: Fleet = field(init=False)

    def __post_init__(self) -> None:
        self.fleet = self.conversation.fleet

    async def close(self) -> None:
        await self.guard.close()
        await self.database.close(5)


def shared_guard(
    url: str,
    folder: Path,
    *,
    prefix: str = "test:",
    replicas: int | None = 1,
    tranche: float = 0.0,
    clock: Clock | None = None,
    timeout_s: float = 2.0,
    quarantine_ms: int | None = None,
    seed: Callable[[Guard], None] | None = None,
) -> Replica:
    """Begun on the running loop. With a clock, limits go by it, else by Redis' own."""
    database = Database(folder)
    database.open()
    database.begin()
    fleet = Fleet(database, replicas) if quarantine_ms is None else Fleet(database, replicas, quarantine_ms)
    conversation = Conversation(
        RedisLink(url, prefix, timeout_s),
        fleet,
        Grants(tranche),
        wall_ms=wall_ms if clock is None else lambda: clock.wall,
        now_ms=None if clock is None else lambda: clock.steady,
    )
    clocks = {
        "wall_ms": wall_ms if clock is None else lambda: clock.wall,
        "steady_ms": steady_ms if clock is None else lambda: clock.steady,
    }
    guard = Guard(SharedLimiter(conversation, **clocks), **clocks)
    if seed is not None:
        seed(guard)
    guard.begin()
    return Replica(guard, conversation, database)


async def becomes(probe: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Returns once it is so."""
    deadline = time.monotonic() + timeout_s
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def caller(key: Policy | None = None, tenant: Policy | None = None, *, key_id: str = "key", of: str = "one") -> Caller:
    return Caller(of, key_id, key_policy=key or Policy(), tenant_policy=tenant or Policy())


def tokens(amount: int, window: Any = "day", *, hard: bool = True) -> Policy:
    return Policy(budgets=(Budget(amount, "tokens", window, hard),))


async def ask(
    guard: Guard, who: Caller, prompt: int = 10, completion: int = 90, *, can_clamp: bool = False, **more: Any
) -> Hold:
    """A request that is like no other, unless it gets another's `fingerprint`."""
    more = {"cost": None, "fingerprint": next(_prints)} | more
    return await guard.admit(who, prompt_tokens=prompt, max_completion_tokens=completion, can_clamp=can_clamp, **more)


async def refused(guard: Guard, who: Caller, prompt: int = 10, completion: int = 90, **more: Any) -> RateLimited:
    """The refusal of a request."""
    try:
        hold = await ask(guard, who, prompt, completion, **more)
    except RateLimited as exc:
        return exc
    raise AssertionError(f"admitted, with {hold.headers}")
