"""A kill between what a request gives back to its budget and its settlement on disk: the budget holds all the same."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from forebay.ledger.account import KeptSettlement
from forebay.ledger.ledger import Ledger
from forebay.ledger.prices import Price
from forebay.observe.record import RequestRecord
from forebay.stores.database import Database
from forebay.types import Caller, Usage
from support.administrator import OWNER
from support.fleet import limit_tenant, peak_cost
from support.keyed import keyed, new_key
from support.ledger import LedgerFile
from support.server import ServerProcess, free_port

PRICES = {"version": "1", "models": {"*": {"prompt": 7_000_000, "cached": 1_000_000, "completion": 30_000_000}}}
PROMPT, MOST = 65, 40
RESERVED = PROMPT * 7 + MOST * 30
"""Of which a settlement gives back the discount on what the prefix cache had, and more where the answer is short."""
BUDGET = 12 * RESERVED
NUM_CLIENTS = 8
FAILPOINTS = {"settling": 9, "in_commit": 10, "committed": 10, "storing_answer": 9, "writing_answer": 9}
HEADERS = {"authorization": f"Bearer {OWNER}"}


async def ask_on(http: httpx.AsyncClient, number: int, *, with_keys: bool) -> None:
    """Until the server is gone, or the budget has nothing for this size."""
    for turn in range(200):
        body: dict[str, Any] = {"prompt": [104] * PROMPT, "max_tokens": MOST, "stream": (number + turn) % 2 == 0}
        body["metadata"] = {"forebay_inter_token_ms": "1"}
        headers = keyed(new_key()) if with_keys else {}
        try:
            answer = await http.post("/v1/completions", json={**body, "ignore_eos": turn % 3 > 0}, headers=headers)
        except httpx.TransportError:
            return
        if answer.status_code == 429:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_killed_as_a_budget_runs_out(tmp_path: Path, failpoint: str) -> None:
    """What was held and what was settled, by the files, is at no instant more than the budget; nor is it after the
    start that settles what was open, when the rest is spent."""
    (tmp_path / "prices.json").write_text(json.dumps(PRICES))
    env = {
        "FOREBAY_API_KEYS": OWNER,
        "FOREBAY_ADMIN_PORT": str(free_port()),
        "FOREBAY_PRICES_FILE": str(tmp_path / "prices.json"),
        "FOREBAY_FAILPOINT": f"{failpoint}:{FAILPOINTS[failpoint]}",
    }
    server = ServerProcess(tmp_path / "log", ["--engine", "scripted"], env).start()
    ledger = LedgerFile(server.data_dir)
    try:
        limit_tenant([server], "default", budgets=[{"amount": BUDGET, "unit": "money", "window": "total"}])
        async with httpx.AsyncClient(base_url=server.url, headers=HEADERS, timeout=30) as http:
            with_keys = failpoint.endswith("answer")
            await asyncio.gather(*(ask_on(http, number, with_keys=with_keys) for number in range(NUM_CLIENTS)))
        assert server.wait(10) == -signal.SIGKILL
        held = sum(open_still.cost for open_still in ledger.reservations().values())
        assert held > 0
        assert held + sum(row["cost"] for row in ledger.rows("settle")) <= BUDGET
        del server.env["FOREBAY_FAILPOINT"]
        server.start()
        async with httpx.AsyncClient(base_url=server.url, headers=HEADERS, timeout=30) as http:
            body = {"prompt": [104] * PROMPT, "max_tokens": MOST}
            while (answer := await http.post("/v1/completions", json=body)).status_code == 200:
                pass
        assert answer.json()["error"]["code"] == "insufficient_quota"
    finally:
        server.stop()
    peak, spent = peak_cost([server.data_dir])
    assert BUDGET - RESERVED < spent <= peak <= BUDGET
    assert ledger.faults() == []


async def test_a_settlement_that_is_kept_back_keeps_its_budget(tmp_path: Path) -> None:
    """Until it is handed over: else another request's reservation might be on disk before it."""
    ledger = Ledger(Database(tmp_path), b"s" * 32, None, strict=False, lease_s=60)
    ledger.begin()
    record = RequestRecord("0" * 32, "POST", route="/r", model="m")
    kept: list[KeptSettlement] = []
    record.keep_settlement = kept.append
    freed: list[tuple[int, int]] = []
    account = await ledger.open(
        Caller("t", "k"),
        record,
        at=1_800_000_000_000,
        prompt_tokens=1,
        completion_tokens=100,
        cost=0,
        on_settled=lambda num_tokens, cost: freed.append((num_tokens, cost)),
    )
    account.settle("complete", Usage(1, 2), Usage(1, 2))
    assert (len(kept), freed) == (1, [])
    stored = ledger.settle_with(kept[0], lambda connection: None)
    assert freed == [(3, 0)]
    assert await stored is True
    await ledger.close(5)


@pytest.mark.parametrize(
    ("more", "least"),
    [
        ({}, 10 * 7 + 5 * 30),
        ({"cached": 1_000_000}, 10 * 1 + 5 * 30),
        ({"cached": 9_000_000, "reasoning": 20_000_000}, 10 * 7 + 5 * 20),
        ({"reasoning": 50_000_000}, 10 * 7 + 5 * 30),
    ],
)
def test_after_a_crash_nobody_pays_more_than_without(more: dict[str, int], least: int) -> None:
    """Which tokens were cached, and which reasoning, is not known: the cheaper kind is billed."""
    price = Price(prompt=7_000_000, completion=30_000_000, cache_hit=2_000_000, **more)
    assert price.least(Usage(10, 5), is_hit=False) == least
    assert price.least(Usage(10, 5), is_hit=True) == 30
    assert all(price.cost(Usage(10, 5, cached, reasoning)) >= least for cached in range(11) for reasoning in range(6))
