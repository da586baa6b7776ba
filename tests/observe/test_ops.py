"""Probes and operators' routes, through the door."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import httpx
import pytest

from forebay import __version__
from support.server import ServerProcess

MakeServer = Callable[..., ServerProcess]
CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 20}


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@contextmanager
def open_stream(server: ServerProcess, **metadata: str) -> Iterator[None]:
    body = {**CHAT, "stream": True, "metadata": {"forebay_script": "a b c d e f", **metadata}}
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, timeout=30):
        yield


def test_health_says_what_runs(server: ServerProcess) -> None:
    """The fields of the issue, no more."""
    answer = httpx.get(f"{server.url}/health")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ok",
        "service": "forebay",
        "version": __version__,
        "model_loaded": True,
        "model_name": "scripted",
        "engine": "scripted",
        "device": "cpu",
        "reason": None,
    }


@pytest.mark.parametrize("path", ["/live", "/ready", "/health"])
def test_probes_need_no_key_and_answer_head(keyed_server: ServerProcess, path: str) -> None:
    """A kubelet or a load balancer asks without a key, some with HEAD."""
    assert httpx.get(f"{keyed_server.url}{path}").status_code == 200
    head = httpx.head(f"{keyed_server.url}{path}")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/model/info", "/stats"])
def test_operators_routes_need_a_key_where_there_is_one(keyed_server: ServerProcess, path: str) -> None:
    """401 without; 200 with."""
    assert httpx.get(f"{keyed_server.url}{path}").status_code == 401
    with_key = {"authorization": "Bearer test-key-0123456789abcdef"}
    assert httpx.get(f"{keyed_server.url}{path}", headers=with_key).status_code == 200


def test_service_info_names_routes_that_exist(server: ServerProcess) -> None:
    """Every endpoint that `/` names answers something else than 404."""
    info = httpx.get(f"{server.url}/").json()
    assert (info["name"], info["version"], info["model"]) == ("forebay", __version__, "scripted")
    for path in [info["docs"], info["openapi"], *chain.from_iterable(info["endpoints"].values())]:
        assert httpx.get(f"{server.url}{path}").status_code in (200, 405), path


def test_model_info_says_what_the_engine_chose_and_allows(server: ServerProcess) -> None:
    """Engine, device, why, and the limits in force."""
    info = httpx.get(f"{server.url}/model/info").json()
    assert (info["engine"], info["device"], info["model_id"]) == ("scripted", "cpu", "scripted")
    assert info["engine_reasons"]
    assert info["limits"]["max_model_len"] > 0
    assert info["limits"]["max_choices"] == 8


def test_operators_routes_are_described(server: ServerProcess) -> None:
    """OpenAPI has every one, the probes with the shape of their answer."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    for path in ("/", "/live", "/ready", "/health", "/model/info", "/metrics", "/stats"):
        assert set(document["paths"][path]) == {"get"}
    assert "model_loaded" in document["components"]["schemas"]["Health"]["properties"]


def test_a_hung_engine_is_unhealthy_and_recovers(make_server: MakeServer) -> None:
    """No progress with work running: not ready, unhealthy, up=0; live all the same. Without the work all is well."""
    server = make_server("--engine", "scripted", "--stall-timeout-s", "1")
    with open_stream(server, forebay_fail="hang@2"):
        wait_for(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        health = httpx.get(f"{server.url}/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert health.json()["reason"]
        assert httpx.get(f"{server.url}/live").status_code == 200
        assert "forebay_engine_up 0.0" in httpx.get(f"{server.url}/metrics").text
    wait_for(lambda: httpx.get(f"{server.url}/ready").status_code == 200)


def test_a_restarted_engine_is_counted(make_server: MakeServer) -> None:
    """A dead engine is replaced once by default: the service is ready again, and metrics and statistics say so."""
    server = make_server("--engine", "scripted")

    def restarts() -> Any:
        return httpx.get(f"{server.url}/stats").json()["engine"]["restarts"]

    with open_stream(server, forebay_fail="die@2"):
        pass
    wait_for(lambda: restarts() == 1)
    wait_for(lambda: httpx.get(f"{server.url}/ready").status_code == 200)
    assert "forebay_engine_restarts_total 1.0" in httpx.get(f"{server.url}/metrics").text
    assert httpx.post(f"{server.base_url}/chat/completions", json=CHAT).status_code == 200
