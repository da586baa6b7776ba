"""Redis decides as a single server does: the same requests at the same times, one by one."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import RateLimited
from forebay.tenants.ask import Hold
from forebay.tenants.guard import Guard
from forebay.types import Budget, Caller, Policy
from support.guards import DAY_MS, Clock, ask, becomes, caller, local_guard, shared_guard
from support.redis import RedisProcess

TENANT = Policy(40, 9_000, 6, budgets=(Budget(40_000, "tokens", "day"), Budget(3_000_000, "money", "week")))
KEYS = {
    "red": Policy(12, 4_000, 3, budgets=(Budget(15_000, "tokens", "total"), Budget(9_000, "tokens", "total", False))),
    "green": Policy(None, 2_500, budgets=(Budget(2_000_000, "money", "month"),)),
    "blue": Policy(30, None, 4),
    "grey": Policy(),
}
STEPS = 250
WAITS_S = 1.0
"""Far longer than Redis takes: what is not decided then waits for a place, for the clock stands still."""


async def outcome(guard: Guard, who: Caller, fingerprint: int, sizes: tuple[int, int], can_clamp: bool) -> Any:
    """What the client would see; and the hold, if there is one."""
    asked = ask(
        guard,
        who,
        *sizes,
        can_clamp=can_clamp,
        num_choices=3 if can_clamp else 1,
        fingerprint=fingerprint,
        cost=lambda num_tokens: 100 * (sizes[0] + 3 * num_tokens),
    )
    try:
        hold = await asyncio.wait_for(asked, WAITS_S)
    except TimeoutError:
        return ("waits for a place", None, {}), None
    except RateLimited as exc:
        return (exc.message, exc.retry_after_s, exc.headers), None
    return (hold.max_completion_tokens, hold.cost, hold.headers), hold


@pytest.mark.parametrize("seed", range(6))
async def test_the_same_decisions(redis: RedisProcess, prefix: str, tmp_path: Path, seed: int) -> None:
    """Every refusal in the same words with the same time to come back, every hold with the same headers."""
    r, clock = random.Random(seed), Clock()
    alone, replica = local_guard(clock), shared_guard(redis.url, tmp_path, prefix=prefix, clock=clock)
    callers = {name: caller(policy, TENANT, key_id=name) for name, policy in KEYS.items()}
    held: list[tuple[Hold, Hold]] = []
    back: list[tuple[int, str, int, tuple[int, int], bool]] = []
    seen = set()
    try:
        await becomes(lambda: replica.conversation.is_open)
        for number in range(STEPS):
            clock.forward(r.choice([0, 0, 0.013, 0.2, 1, 2.5, 9]))
            if r.random() < 0.01:
                clock.wall += r.choice([-2, 1, 3]) * DAY_MS
            while held and r.random() < 0.4:
                pair = held.pop(r.randrange(len(held)))
                used = r.randrange(pair[0].ask.prompt_tokens + pair[0].max_completion_tokens + 1)
                for hold in pair:
                    hold.settle(used, used * 100)
            request = (r.choice(sorted(KEYS)), number, (r.randrange(400), 3 * r.randrange(1, 400)), r.random() < 0.3)
            if back and back[0][0] <= clock.steady:
                request = back.pop(0)[1:]
            name, fingerprint, sizes, can_clamp = request
            (mine, my_hold), (shared, shared_hold) = [
                await outcome(guard, callers[name], fingerprint, sizes, can_clamp) for guard in (alone, replica.guard)
            ]
            assert mine == shared, number
            if my_hold is not None and shared_hold is not None:
                held.append((my_hold, shared_hold))
                seen.add("admitted")
                continue
            seen.add(" ".join(mine[0].split()[:3]))
            if mine[1] is not None and r.random() < 0.7:
                back.append((clock.steady + mine[1] * 1000, *request))
                back.sort()
    finally:
        await replica.close()
    assert {"admitted", "Rate limit reached"} <= seen
