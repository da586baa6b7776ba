"""Limits and budgets through the door: what clients see of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from support.administrator import OWNER, AdminClient, Made
from support.server import ServerProcess
from support.wire import eventually

COMPLETIONS = "/v1/completions"
PRICES = '{"version": "1", "models": {"scripted": {"prompt": 1000000, "completion": 2000000}}}'


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Its tokens have a price: one micro-unit for each of the prompt, two for each of the answer."""
    folder = tmp_path_factory.mktemp("limited")
    (folder / "prices.json").write_text(PRICES)
    running = ServerProcess(
        folder / "log",
        ["--engine", "scripted"],
        {"FOREBAY_API_KEYS": OWNER, "FOREBAY_PRICES_FILE": str(folder / "prices.json")},
    ).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def admin(limited: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(limited, OWNER) as client:
        yield client


def with_limits(admin: AdminClient, tenant: str = "default", **limits: Any) -> Made:
    return admin.make(limits=limits, tenant=tenant)


def budget(amount: int, unit: str = "tokens", window: str = "day", *, hard: bool = True) -> dict[str, Any]:
    return {"amount": amount, "unit": unit, "window": window, "hard": hard}


def complete(server: ServerProcess, key: Made, num_tokens: int | None = 4, **more: Any) -> httpx.Response:
    """A prompt of five tokens; the answer has as many as it may."""
    body = {"prompt": [104] * 5, "ignore_eos": True, "max_tokens": num_tokens} | more
    return httpx.post(server.url + COMPLETIONS, json=body, headers=key.headers, timeout=30)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 429, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_headers_tell_what_is_left(limited: ServerProcess, admin: AdminClient) -> None:
    """On answers, on streams and on refusals, of the tighter of key and tenant; nothing where nothing is limited."""
    admin.get("PUT", "/tenants/tight", {"limits": {"requests_per_minute": 3}})
    key = with_limits(admin, "tight", requests_per_minute=10, tokens_per_minute=1000)
    answer = complete(limited, key)
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "2"
    assert answer.headers["x-ratelimit-reset-requests"] == "20s"
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "991"
    assert answer.headers["x-ratelimit-reset-tokens"] == "540ms"
    assert complete(limited, key, stream=True).headers["x-ratelimit-remaining-requests"] == "1"
    assert complete(limited, key).status_code == 200
    refused = complete(limited, key)
    assert error_of(refused) == {
        "message": "Rate limit reached for tenant: 3 requests per minute. Try again in 20 s.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("20", "20000")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in refused.headers
    assert not any(name.startswith("x-ratelimit") for name in complete(limited, with_limits(admin)).headers)


def test_what_never_fits_is_not_to_be_repeated(limited: ServerProcess, admin: AdminClient) -> None:
    """More tokens than a minute has, by the client's own word."""
    key = with_limits(admin, tokens_per_minute=20)
    refused = complete(limited, key, 16)
    assert "requested 21 tokens, limit 20 tokens per minute" in error_of(refused)["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert complete(limited, key, 15).status_code == 200


def test_a_budget_shortens_answers_and_then_ends(limited: ServerProcess, admin: AdminClient) -> None:
    """Who names no limit gets as many tokens as are left; with none left the SDKs are told not to try again."""
    key = with_limits(admin, budgets=[budget(40)])
    assert complete(limited, key, 10).json()["usage"]["total_tokens"] == 15
    assert error_of(complete(limited, key, 21))["code"] == "insufficient_quota"
    chat = httpx.post(
        limited.url + "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "a"}], "ignore_eos": True},
        headers=key.headers,
    ).json()
    assert chat["usage"]["total_tokens"] == 25
    assert chat["choices"][0]["finish_reason"] == "length"
    refused = complete(limited, key, 1)
    assert "daily budget of 40 tokens has 0 tokens left" in error_of(refused)["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers


def test_money(limited: ServerProcess, admin: AdminClient) -> None:
    """Spent as the price table says, shared by the keys of a tenant."""
    admin.get("PUT", "/tenants/rich", {"limits": {"budgets": [budget(50, "money", "total")]}})
    first, second = with_limits(admin, "rich"), with_limits(admin, "rich")
    assert complete(limited, first, 10).status_code == 200
    assert "total budget of 0.00005 has 0.000025 left" in error_of(complete(limited, second, 11))["message"]
    assert complete(limited, second, 10).status_code == 200
    assert error_of(complete(limited, first, 1))["type"] == "insufficient_quota"


def test_a_restart_forgets_no_budget(tmp_path: Path) -> None:
    """What was spent before SIGTERM, and before SIGKILL, is spent."""
    settings = {"FOREBAY_API_KEYS": OWNER, "FOREBAY_LEDGER_STRICT": "true"}
    server = ServerProcess(tmp_path / "log", ["--engine", "scripted"], settings).start()
    try:
        with AdminClient(server, OWNER) as admin:
            key = with_limits(admin, budgets=[budget(30)])
        assert complete(server, key, 5).status_code == 200
        server.stop()
        server.start()
        assert "has 20 tokens left" in error_of(complete(server, key, 16))["message"]
        assert complete(server, key, 10).status_code == 200
        server.signal(9)
        server.wait(10)
        server.start()
        assert "has 5 tokens left" in error_of(complete(server, key, 1))["message"]
    finally:
        server.stop()


def test_streams_that_are_left_give_back_what_they_did_not_use(limited: ServerProcess, admin: AdminClient) -> None:
    """A client that goes pays for what was generated."""
    key = with_limits(admin, budgets=[budget(1000)], max_concurrency=1)
    slow = {"prompt": "a", "max_tokens": 900, "ignore_eos": True, "stream": True}
    slow |= {"metadata": {"forebay_inter_token_ms": "100"}}
    with httpx.stream("POST", limited.url + COMPLETIONS, json=slow, headers=key.headers) as answer:
        lines = answer.iter_lines()
        next(lines)
        error = error_of(complete(limited, key))
        assert "1 requests at a time" in error["message"]
    answer = eventually(lambda: (again := complete(limited, key, 900)).status_code == 200 and again)
    assert answer.json()["usage"]["completion_tokens"] == 900


async def test_the_sdk_waits_as_told_and_is_let_in(limited: ServerProcess, admin: AdminClient) -> None:
    """Twelve clients at once where six find tokens: the others are refused once, each with a time of its own."""
    key = with_limits(admin, tokens_per_minute=1200)
    refusals: list[int] = []

    async def note(response: httpx.Response) -> None:
        if response.status_code == 429:
            refusals.append(int(response.headers["retry-after"]))

    async with (
        httpx.AsyncClient(event_hooks={"response": [note]}) as http,
        openai.AsyncOpenAI(base_url=limited.base_url, api_key=key.key, http_client=http, max_retries=1) as client,
    ):

        async def ask(number: int, num_tokens: int) -> int:
            answer = await client.completions.create(
                model="scripted", prompt=[100 + number] * 5, max_tokens=num_tokens, extra_body={"ignore_eos": True}
            )
            assert answer.usage is not None
            return answer.usage.completion_tokens

        assert await ask(0, 1135) == 1135
        assert await asyncio.gather(*(ask(number, 5) for number in range(12))) == [5] * 12
    assert 1 <= len(refusals) <= 6
    assert max(refusals) <= 3
