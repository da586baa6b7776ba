"""What surrounds a request, where no client can see it: how it is accounted for when the server gives it up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import httpx
import pytest

from forebay.app import create_app
from forebay.drain import Drain
from forebay.http_cycle import Cycle
from forebay.middleware import RequestMiddleware, TaggedSend
from forebay.observe.record import RequestRecord
from forebay.services import build_services
from forebay.settings import Settings


async def test_a_request_that_is_cancelled_before_its_answer_failed() -> None:
    """As happens to what outlasts a hurried end: nobody was answered, so nobody was answered well."""
    services = build_services(Settings(engine="scripted"))
    services.begin()
    entered = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.sleep(60)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    request = asyncio.create_task(RequestMiddleware(app, services)(scope, asyncio.sleep, asyncio.sleep))
    await entered.wait()
    assert services.drain.in_flight == 1
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    counted = 'forebay_requests_total{outcome="failed",route="unmatched",status="none"} 1.0'
    assert counted in (await services.metrics.render()).decode()
    assert services.drain.in_flight == 0
    await services.close()


async def test_a_failure_behind_fastapi_has_our_error_body() -> None:
    """Whichever route fails, its client gets JSON that names the request, and nothing of Starlette's own."""
    app = create_app(Settings(engine="scripted"))

    @app.get("/broken")
    async def broken() -> None:
        raise ValueError("a secret")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        answer = await client.get("/broken")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "internal_error"
    assert answer.headers["x-request-id"] in error["message"]
    assert "secret" not in answer.text
    await app.services.close()


def test_only_the_requests_own_send_leads_to_its_connection() -> None:
    """Who holds it may write frames past it; one that is wrapped, as for an Idempotency-Key or CORS, leads nowhere."""
    cycle = object.__new__(Cycle)
    record = RequestRecord("id", "POST")
    assert TaggedSend(cycle.send, record, {}, Drain()).cycle is cycle
    assert TaggedSend(partial(cycle.send), record, {}, Drain()).cycle is None
