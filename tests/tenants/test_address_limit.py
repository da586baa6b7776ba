"""What needs no key is limited per address, so that nobody fills logs or tries keys for nothing."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from support.administrator import OWNER
from support.server import ServerProcess

PER_MINUTE = 40
GOOD = {"authorization": f"Bearer {OWNER}"}


@pytest.fixture
def strict(make_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Believes what a proxy on this machine says of addresses."""
    return make_server(FOREBAY_ENGINE="scripted", FOREBAY_API_KEYS=OWNER, FOREBAY_ADDRESS_RPM=str(PER_MINUTE))


def refusals(answers: list[httpx.Response]) -> list[httpx.Response]:
    return [answer for answer in answers if answer.status_code == 429]


def test_strangers_are_counted_per_address(strict: ServerProcess) -> None:
    """Probes, open documents and wrong keys together; a good key, and another address, are not concerned."""
    with httpx.Client(base_url=strict.url) as http:
        one, other = ({"x-forwarded-for": address} for address in ("192.0.2.1", "192.0.2.2"))
        wrong = {"authorization": "Bearer wrong-key-0123456789"}
        asked = [("/live", one), ("/ready", one), ("/openapi.json", one), ("/v1/models", one | wrong)]
        answers = [http.get(path, headers=headers) for path, headers in asked * (PER_MINUTE // len(asked))]
        assert refusals(answers) == []
        assert [answer.status_code for answer in answers[:4]] == [200, 200, 200, 401]
        for path, headers in asked:
            refused = http.get(path, headers=headers)
            assert refused.status_code == 429
            assert refused.json()["error"]["message"] == (
                "Rate limit reached for this address: 40 requests per minute without a valid key."
            )
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert http.get("/v1/models", headers=one | GOOD).status_code == 200
        assert http.get("/live", headers=other).status_code == 200
        assert http.get("/v1/models", headers=other | wrong).status_code == 401


def test_probes_are_far_from_it(server: ServerProcess) -> None:
    """By default an address may ask a hundred times a second."""
    with httpx.Client(base_url=server.url) as http:
        assert refusals([http.get("/live") for _ in range(300)]) == []
