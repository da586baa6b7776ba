"""The admin API's own listener: where it is, when it is not, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from forebay.errors import ConfigurationError
from forebay.exposure import check_exposure
from forebay.settings import Settings
from forebay.sockets import base_url, bind_admin_socket
from support.administrator import AdminClient
from support.command import forebay
from support.door import MESSAGES
from support.server import ServerProcess
from support.wire import eventually


def test_each_listener_has_its_own_routes(governed: ServerProcess, owner: AdminClient) -> None:
    """The admin API is not where the service is reached, and the other way round."""
    for url, paths in ((governed.url, ("/admin/keys", "/admin/audit")), (governed.admin_url, ("/v1/models", "/live"))):
        for path in paths:
            assert httpx.get(url + path, headers=owner.headers).status_code == 404


def test_the_same_rules_hold_on_both(governed: ServerProcess, owner: AdminClient) -> None:
    """Request ids, the error body, caps on heads and bodies, media types, and the request's line in the log."""
    url, headers = f"{governed.admin_url}/admin/keys", owner.headers
    answer = httpx.get(url, headers={**headers, "x-request-id": "mine-42"})
    assert answer.headers["x-request-id"] == "mine-42"
    line = eventually(lambda: next((line for line in governed.log.splitlines() if "mine-42" in line), None))
    assert '"route":"/admin/keys"' in line
    assert httpx.get(url, headers={**headers, "x-filler": "x" * 40_000}).status_code == 431
    assert httpx.post(url, headers=headers, content=b"x" * 5_000_000).status_code == 413
    assert httpx.post(url, headers=headers, content=b"{}").status_code == 415
    answer = httpx.put(url, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"


def test_a_taken_default_port_is_no_reason_not_to_serve() -> None:
    """Without the setting there is just no admin API; with it the port that cannot be had is named."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} .* another --admin-port"):
            bind_admin_socket(Settings(admin_port=port))
        unasked = Settings.model_construct(_fields_set=set(), **{**Settings().model_dump(), "admin_port": port})
        assert bind_admin_socket(unasked) is None
    found = bind_admin_socket(Settings(admin_port=0))
    assert found is not None
    with found:
        assert base_url(found).startswith("http://127.0.0.1:")


def test_an_asked_for_port_that_is_taken_refuses_to_start(server: ServerProcess, tmp_path: Path) -> None:
    """In a sentence, with exit code 2."""
    port = server.admin_url.rpartition(":")[2]
    done = forebay("serve", "--engine", "scripted", "--port", "0", "--admin-port", port, data_dir=tmp_path)
    assert done.returncode == 2
    assert f"Port {port}" in done.stderr


def test_a_bind_beyond_loopback_counts_the_keys_of_the_file(tmp_path: Path) -> None:
    """The service's and the admin API's alike; one key, even one that was revoked, closes every route."""
    for where in ({"host": "0.0.0.0"}, {"admin_host": "0.0.0.0"}):
        with pytest.raises(ConfigurationError, match="without a key"):
            check_exposure(Settings(data_dir=tmp_path, **where))
    assert forebay("keys", "create", data_dir=tmp_path).returncode == 0
    for where in ({"host": "0.0.0.0"}, {"admin_host": "0.0.0.0"}):
        check_exposure(Settings(data_dir=tmp_path, **where))


def test_it_ends_with_the_service(make_server: Callable[..., ServerProcess]) -> None:
    """While a stream is finished its new requests are refused, too, and the port is free once the process has ended."""
    key = "k" * 20
    server = make_server("--engine", "scripted", FOREBAY_API_KEYS=key)
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.admin_url, headers=headers) as admin:
        assert admin.get("/admin/keys").status_code == 200
        script = {"forebay_script": "word " * 30, "forebay_inter_token_ms": "50"}
        body = {"messages": MESSAGES, "stream": True, "metadata": script}
        with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, headers=headers) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.signal(signal.SIGTERM)
            eventually(lambda: admin.get("/admin/keys").status_code == 503)
            assert "data: [DONE]" in list(lines)
    assert server.wait(15) == 0
    port = int(server.admin_url.rpartition(":")[2])
    with closing(socket.create_server(("127.0.0.1", port))):
        pass
