"""Four servers and one budget: never more than it pays for, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx

from support.administrator import OWNER
from support.fleet import limit_tenant, peak_tokens
from support.server import ServerProcess

HEADERS = {"authorization": f"Bearer {OWNER}"}


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


async def test_one_budget(four: Any) -> None:
    """200 requests at once for a budget of 20: exactly 20 are let in. Then mixed requests, with clients that leave
    and a Redis that is wiped in the middle: never more than the budget, and none of it is left unused."""
    servers, redis = four.servers, four.redis
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

        question = {"messages": [{"role": "user", "content": "a"}], "ignore_eos": True}
        while (answer := await http.post(servers[0].url + "/v1/chat/completions", json=question)).status_code != 429:
            assert answer.status_code in (200, 503)  # as long as it may be, or closed
        peak, spent = peak_tokens(folders)
        assert 5900 < spent <= peak <= 6000
    limit_tenant(servers, "default")
