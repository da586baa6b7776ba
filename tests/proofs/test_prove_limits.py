"""Limits and budgets at length: crowds of clients that wait as told, one budget for four servers, revocations."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from proofs.conftest import Proof
from support.administrator import OWNER, AdminClient
from support.fleet import fleet, limit_tenant, one_or_more, peak_tokens
from support.redis import RedisProcess
from support.server import ServerProcess
from support.simulation import CROWDS, Simulation

SEEDS, KEPT = 20, 0.95
ROUNDS, ROUND_REQUESTS, ROUND_TOKENS = 10, 400, 8_000
EXACT_ROUNDS, EXACT_ASKED, EXACT_PAID, EXACT_TOKENS = 20, 200, 20, 50
REVOCATIONS, WITHIN_S = 50, 1.0
HEADERS = {"authorization": f"Bearer {OWNER}"}


def test_clients_that_wait_as_told(proof: Proof) -> None:
    """Each crowd twenty times, by other chances."""
    kept = {}
    for name, crowd in CROWDS.items():
        runs = [Simulation(crowd, seed).run() for seed in range(SEEDS)]
        kept[name] = sum(run.kept for run in runs) / sum(run.told for run in runs)
        assert kept[name] >= KEPT, name
    proof(
        "retry-after",
        f"Of clients that come back as told, {KEPT:.0%} at least are let in; simulated, ten minutes each.",
        runs=SEEDS * len(CROWDS),
        **{name.replace(" ", "_").replace(",", ""): round(share, 4) for name, share in kept.items()},
    )


async def ask(http: httpx.AsyncClient, server: ServerProcess, r: random.Random) -> Any:
    """Of some size; streams are left after their first bytes."""
    body = {"prompt": [104] * r.randrange(1, 50), "max_tokens": r.choice([5, 40, 300]), "ignore_eos": True}
    url = server.url + "/v1/completions"
    if r.random() < 0.6:
        answer = await http.post(url, json=body)
        return 200 if answer.status_code == 200 else answer.json()["error"]["code"]
    body |= {"stream": True, "metadata": {"forebay_inter_token_ms": "10"}}
    async with http.stream("POST", url, json=body) as answer:
        async for _ in answer.aiter_bytes():
            break
    return "left" if answer.status_code == 200 else "refused"


@pytest.mark.parametrize("num_servers", [1, 4])
async def test_exactly_as_many_as_a_budget_pays_for(tmp_path: Path, proof: Proof, num_servers: int) -> None:
    """200 at once for what pays for 20, again and again: one server alone, and four that share Redis."""
    body = {"prompt": [104] * 10, "max_tokens": EXACT_TOKENS - 10, "ignore_eos": True}
    admitted = []
    with one_or_more(tmp_path, num_servers) as servers:
        limits = httpx.Limits(max_connections=EXACT_ASKED)
        async with httpx.AsyncClient(headers=HEADERS, timeout=60, limits=limits) as http:
            for number in range(1, EXACT_ROUNDS + 1):
                amount = number * EXACT_PAID * EXACT_TOKENS
                budget = {"amount": amount, "unit": "tokens", "window": "total", "hard": True}
                await asyncio.to_thread(limit_tenant, servers, "default", budgets=[budget])
                urls = [servers[at % num_servers].url + "/v1/completions" for at in range(EXACT_ASKED)]
                answers = await asyncio.gather(*(http.post(url, json=body) for url in urls))
                admitted.append(sum(answer.status_code == 200 for answer in answers))
                refused = {answer.json()["error"]["code"] for answer in answers if answer.status_code != 200}
                assert refused == {"insufficient_quota"}
                assert peak_tokens([server.data_dir for server in servers]) == (amount, amount)
    assert admitted == [EXACT_PAID] * EXACT_ROUNDS
    proof(
        f"exact-budget-{num_servers}",
        f"{EXACT_ASKED} at once for a budget of {EXACT_PAID}: exactly {EXACT_PAID} are let in.",
        servers=num_servers,
        rounds=EXACT_ROUNDS,
        requests=EXACT_ROUNDS * EXACT_ASKED,
        admitted_least=min(admitted),
        admitted_most=max(admitted),
    )


async def test_one_budget_for_four_servers(tmp_path: Path, proof: Proof) -> None:
    """Rounds of mixed requests, half of them left, each with a bigger budget; Redis is wiped or killed in each."""
    r, outcomes, used = random.Random(1), Counter[Any](), []
    redis = RedisProcess(tmp_path / "redis").start()
    try:
        with fleet(redis, tmp_path, 4) as servers:
            folders = [server.data_dir for server in servers]
            async with httpx.AsyncClient(headers=HEADERS, timeout=60) as http:
                for number in range(1, ROUNDS + 1):
                    amount = number * ROUND_TOKENS
                    budget = {"amount": amount, "unit": "tokens", "window": "total", "hard": True}
                    await asyncio.to_thread(limit_tenant, servers, "default", budgets=[budget])
                    asked = []
                    fault = r.randrange(ROUND_REQUESTS)
                    for index in range(ROUND_REQUESTS):
                        asked.append(asyncio.create_task(ask(http, r.choice(servers), r)))
                        await asyncio.sleep(0.005)
                        if index == fault and number % 2:
                            redis.command("FLUSHALL")
                        elif index == fault:
                            redis.kill()
                            redis.start()
                    outcomes.update(await asyncio.gather(*asked))
                    peak, spent = peak_tokens(folders)
                    assert spent <= peak <= amount
                    used.append(spent / amount)
    finally:
        redis.stop()
    assert set(outcomes) <= {200, "insufficient_quota", "budget_unavailable", "left", "refused"}
    proof(
        "one-budget",
        "Four servers, one hard budget, Redis wiped or killed every round: never more is held and spent than it has.",
        rounds=ROUNDS,
        over_budget=0,
        budget_used_least=round(min(used), 3),
        **{f"outcome_{name}": count for name, count in sorted(outcomes.items(), key=str)},
    )


async def test_revocations_reach_every_server(tmp_path: Path, proof: Proof) -> None:
    """From the answer of the server that revoked a key until the other refuses it."""
    took = []
    redis = RedisProcess(tmp_path / "redis").start()
    try:
        with fleet(redis, tmp_path, 2) as (one, two), AdminClient(one, OWNER) as admin:
            async with httpx.AsyncClient(base_url=two.url, timeout=30) as http:

                async def comes(key: dict[str, str], status: int) -> None:
                    for _ in range(1000):
                        if (await http.get("/v1/models", headers=key)).status_code == status:
                            return
                        await asyncio.sleep(0.01)

                for _ in range(REVOCATIONS):
                    key = await asyncio.to_thread(admin.make)
                    await asyncio.wait_for(comes(key.headers, 200), 10)
                    await asyncio.to_thread(admin.get, "POST", f"/keys/{key.id}/revoke")
                    began = time.monotonic()
                    await asyncio.wait_for(comes(key.headers, 401), 10)
                    took.append(time.monotonic() - began)
    finally:
        redis.stop()
    assert max(took) <= WITHIN_S
    proof(
        "revocation",
        f"A key that one server revokes is refused by the other within {WITHIN_S:g} s.",
        revocations=len(took),
        ms_median=round(1000 * sorted(took)[len(took) // 2]),
        ms_most=round(1000 * max(took)),
    )
