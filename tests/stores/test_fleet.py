"""Four servers and one budget: never more than it pays for, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.administrator import OWNER
from support.fleet import fleet, limit_tenant, peak_tokens
from support.redis import RedisProcess
from support.server import ServerProcess

HEADERS = {"authorization": f"Bearer {OWNER}"}


@pytest.fixture(scope="module")
def servers(redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    with fleet(redis, tmp_path_factory.mktemp("fleet"), 4, FOREBAY_REDIS_PREFIX="fleet:") as running:
        yield running


def set_budget(servers: list[ServerProcess], amount: int) -> None:
    budget = {"amount": amount, "unit": "tokens", "window": "total", "hard": True}
    limit_tenant(servers, "default", budgets=[budget])


async def complete(http: httpx.AsyncClient, server: ServerProcess, **more: Any) -> int | str:
    """The status, or the refusal's code."""
    body = {"prompt": [104] * 10, "max_tokens": 40, "ignore_eos": True} | more
    answer = await http.post(server.url + "/v1/completions", json=body)
    return 200 if answer.status_code == 200 else str(answer.json()["error"]["code"])


async def leave(http: httpx.AsyncClient, server: ServerProcess, num_tokens: int) -> str:
    """A stream that its client leaves after the first token, if it gets one."""
    body = {"prompt": [104] * 10, "max_tokens": num_tokens, "ignore_eos": True, "stream": True}
    body["metadata"] = {"forebay_inter_token_ms": "20"}
    async with http.stream("POST", server.url + "/v1/completions", json=body) as answer:
        async for _ in answer.aiter_bytes():
            break
    return "left" if answer.status_code == 200 else "refused"


async def test_one_budget(servers: list[ServerProcess], redis: RedisProcess) -> None:
    """200 requests at once for a budget of 20: exactly 20 are let in. Then twice as much, for mixed requests with clients
    that leave and a Redis that is wiped in the middle: never more than the budget, and none is left unused."""
    folders = [server.data_dir for server in servers]
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, limits=limits) as http:
        set_budget(servers, 20 * 50)
        codes = Counter(await asyncio.gather(*(complete(http, servers[number % 4]) for number in range(200))))
        assert codes == {200: 20, "insufficient_quota": 180}
        assert peak_tokens(folders) == (1000, 1000)

        set_budget(servers, 6000)
        r, asked = random.Random(1), []
        for number in range(300):
            server, size = servers[number % 4], r.choice([10, 50, 200])
            asked.append(
                asyncio.ensure_future(
                    leave(http, server, size) if r.random() < 0.5 else complete(http, server, max_tokens=size)
                )
            )
            await asyncio.sleep(0.002)
            if number == 100:
                redis.command("FLUSHALL")
        outcomes = Counter(await asyncio.gather(*asked))
        assert set(outcomes) <= {200, "insufficient_quota", "budget_unavailable", "left", "refused"}
        assert outcomes["budget_unavailable"] > 0
        assert outcomes["left"] > 0
        peak, spent = peak_tokens(folders)
        assert 1000 < spent <= peak <= 6000

        async def spend_all() -> None:
            """Until there is nothing left for the smallest request."""
            number = 0
            while (
                code := await complete(http, servers[number % 4], prompt=[104], max_tokens=1)
            ) != "insufficient_quota":
                number += code == 200 or code == "budget_unavailable"

        await asyncio.wait_for(asyncio.gather(*(spend_all() for _ in range(16))), 30)
        assert peak_tokens(folders)[0] <= 6000
        assert peak_tokens(folders)[1] >= 5999
    for server in servers:
        assert "forebay_shared_budgets_open 1.0" in httpx.get(server.url + "/metrics").text
