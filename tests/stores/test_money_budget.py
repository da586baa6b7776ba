"""A budget in money, of one server or of four that share a Redis: never more than it pays for, at whatever prices."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.administrator import OWNER
from support.fleet import limit_tenant, one_or_more, peak_cost
from support.server import ServerProcess

PRICES = {
    "version": "1",
    "models": {
        "cheap": {"prompt": 1_000_000, "completion": 2_000_000},
        "dear": {"prompt": 7_000_000, "completion": 30_000_000, "cached": 1_000_000},
    },
}
PROMPT, MOST = 10, 40
COST = PROMPT * 1 + MOST * 2
"""Micro-units, of a request of the cheap model."""
HEADERS = {"authorization": f"Bearer {OWNER}"}


@pytest.fixture(params=[1, 4], ids=["one", "four"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """One counts by itself, four in Redis."""
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    env = {"FOREBAY_SERVED_MODEL_NAMES": "cheap,dear", "FOREBAY_PRICES_FILE": str(tmp_path / "prices.json")}
    with one_or_more(tmp_path, request.param, **env) as running:
        yield running


async def ask(http: httpx.AsyncClient, server: ServerProcess, model: str, most: int, *, leave: bool) -> str:
    """`ok`, `left` after the first bytes, or the refusal's code."""
    body: dict[str, Any] = {"model": model, "prompt": [104] * PROMPT, "max_tokens": most, "ignore_eos": True}
    if leave:
        body |= {"stream": True, "metadata": {"forebay_inter_token_ms": "10"}}
    async with http.stream("POST", server.url + "/v1/completions", json=body) as answer:
        if answer.status_code != 200:
            return str(json.loads(await answer.aread())["error"]["code"])
        if leave:
            await anext(answer.aiter_bytes())
            return "left"
        await answer.aread()
    return "ok"


def set_budget(servers: list[ServerProcess], amount: int) -> None:
    limit_tenant(servers, "default", budgets=[{"amount": amount, "unit": "money", "window": "total", "hard": True}])


async def test_two_hundred_ask_for_what_pays_for_twenty(servers: list[ServerProcess]) -> None:
    """At one price exactly twenty are let in; at mixed prices, with clients that leave and settlements meanwhile, the
    budget is never exceeded."""
    folders, draw = [server.data_dir for server in servers], random.Random(20)
    async with httpx.AsyncClient(headers=HEADERS, timeout=60, limits=httpx.Limits(max_connections=200)) as http:
        set_budget(servers, 20 * COST)
        asked = [ask(http, servers[at % len(servers)], "cheap", MOST, leave=False) for at in range(200)]
        assert Counter(await asyncio.gather(*asked)) == {"ok": 20, "insufficient_quota": 180}
        assert peak_cost(folders) == (20 * COST, 20 * COST)

        amount = 20 * COST + 20 * (PROMPT * 7 + MOST * 30)
        set_budget(servers, amount)
        mixed = []
        for at in range(200):
            model, most = draw.choice(["cheap", "dear"]), draw.choice([5, MOST, 4 * MOST])
            server, leaves = servers[at % len(servers)], draw.random() < 0.4
            mixed.append(asyncio.create_task(ask(http, server, model, most, leave=leaves)))
            await asyncio.sleep(0.002)
        outcomes = Counter(await asyncio.gather(*mixed))
        assert outcomes.keys() == {"ok", "left", "insufficient_quota"}
        peak, spent = peak_cost(folders)
        assert 20 * COST < spent <= peak <= amount
