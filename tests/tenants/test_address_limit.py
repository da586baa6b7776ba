"""What needs no key is limited per address, so that nobody fills logs or tries keys for nothing."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.administrator import OWNER
from support.server import ServerProcess

PER_MINUTE = 40
GOOD = {"authorization": f"Bearer {OWNER}"}
WRONG = {"authorization": "Bearer wrong-key-0123456789"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Asks a server that believes what a proxy on this machine says of addresses."""
    running = ServerProcess(
        tmp_path_factory.mktemp("strict") / "log",
        ["--engine", "scripted"],
        {"FOREBAY_API_KEYS": OWNER, "FOREBAY_ADDRESS_RPM": str(PER_MINUTE)},
    ).start()
    with httpx.Client(base_url=running.url) as client:
        yield client
    running.stop()


def address(of: str) -> dict[str, str]:
    return {"x-forwarded-for": of}


def check_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 429
    assert answer.json()["error"]["message"] == (
        "Rate limit reached for this address: 40 requests per minute without a valid key."
    )
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_wrong_keys_are_counted_per_address(strict: httpx.Client) -> None:
    """A good key, and another address, are not concerned. Nor are probes, metrics and documents: who tries keys behind
    a proxy must not end what watches the service."""
    one, other = address("192.0.2.1"), address("192.0.2.2")
    answers = [strict.get("/v1/models", headers=one | WRONG) for _ in range(PER_MINUTE)]
    assert {answer.status_code for answer in answers} == {401}
    check_refused(strict.get("/v1/models", headers=one | WRONG))
    assert strict.get("/v1/models", headers=one | GOOD).status_code == 200
    assert strict.get("/v1/models", headers=other | WRONG).status_code == 401
    for path in ("/live", "/ready", "/health", "/metrics", "/openapi.json"):
        assert strict.get(path, headers=one).status_code == 200


def test_open_documents_are_counted_alone(strict: httpx.Client) -> None:
    """An address that asks for them without end is refused them, and nothing else."""
    one = address("192.0.2.3")
    answers = [strict.get("/openapi.json", headers=one) for _ in range(PER_MINUTE)]
    assert {answer.status_code for answer in answers} == {200}
    check_refused(strict.get("/docs", headers=one))
    assert strict.get("/v1/models", headers=one | WRONG).status_code == 401


def test_probes_are_never_refused(strict: httpx.Client) -> None:
    """They cost nothing, and who starts and ends servers goes by them."""
    for path in ("/live", "/ready", "/health"):
        answers = [strict.get(path, headers=address("192.0.2.4")) for _ in range(2 * PER_MINUTE)]
        assert {answer.status_code for answer in answers} == {200}
