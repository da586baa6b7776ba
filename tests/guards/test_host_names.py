"""CVE-2024-28224: a page of another site whose name points to loopback reads what is open there (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from support.door import BODIES, CHAT
from support.server import ServerProcess

FOREIGN = ["rebind.example", "rebind.example:8000", "localhost.example", "127.0.0.1.example", "0.0.0.0", "10.0.0.1", ""]
OWN = ["localhost", "LocalHost:9", "box.localhost", "localhost.", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8000"]


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_name_is_refused(client: httpx.Client, host: str) -> None:
    """Where no key is asked for, on every route but probes; the refusal says what to do."""
    for path in ("/v1/models", "/", "/stats", "/metrics", "/docs", "/openapi.json"):
        answer = client.get(path, headers={"host": host})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied"), path
        assert "FOREBAY_ALLOWED_HOSTS" in answer.json()["error"]["message"]
    assert client.post(CHAT, json=BODIES[CHAT], headers={"host": host}).status_code == 403
    assert client.get("/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_are_answered(client: httpx.Client, host: str) -> None:
    """With any port."""
    for path in ("/v1/models", "/openapi.json"):
        assert client.get(path, headers={"host": host}).status_code == 200


def test_a_setting_names_more(make_server: Callable[..., ServerProcess]) -> None:
    """For a proxy that hands the client's Host on."""
    running = make_server(FOREBAY_ALLOWED_HOSTS="box.example, Other.Example")
    for host, status in (("box.example", 200), ("other.example:443", 200), ("a.box.example", 403)):
        assert httpx.get(f"{running.url}/v1/models", headers={"host": host}).status_code == status


def test_a_key_is_enough(keyed_server: ServerProcess) -> None:
    """No site has one: its bearer may use any name. What stays open on loopback is still this machine's alone."""
    headers = {"host": "api.example", "authorization": "Bearer test-key-0123456789abcdef"}
    assert httpx.get(f"{keyed_server.url}/v1/models", headers=headers).status_code == 200
    assert httpx.get(f"{keyed_server.url}/metrics", headers=headers).status_code == 403
