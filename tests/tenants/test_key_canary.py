"""Keys, tokens and what is sent with them appear in no log, metric, error or file (LiteLLM #1127, #5433, #8075)."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from support.administrator import OWNER, AdminClient
from support.door import MESSAGES
from support.server import ServerProcess

CANARY = "canary"


def test_no_secret_is_left_behind(make_server: Callable[..., ServerProcess]) -> None:
    """At the most talkative level: keys made, used, mistyped, rotated, revoked; in bodies, queries, other headers."""
    server = make_server(
        "--engine",
        "scripted",
        "--host",
        "0.0.0.0",
        FOREBAY_API_KEYS=OWNER,
        FOREBAY_LOG_LEVEL="debug",
        FOREBAY_TRUSTED_USER_HEADER="x-user-id",
    )
    secrets = [OWNER]
    errors: list[httpx.Response] = []
    with AdminClient(server, OWNER) as owner, httpx.Client(base_url=server.url, timeout=30) as client:
        first = owner.make(tenant="acme", gateway=True)
        second = owner.get("POST", f"/keys/{first.id}/rotate", {"grace_s": 60})["key"]
        secrets += [first.key, second, f"{second}{CANARY}", second[:-1], f"{CANARY}.{CANARY}.{CANARY}"]
        body = {"messages": [{"role": "user", "content": CANARY}], "user": CANARY, "max_tokens": 2}
        for key in secrets:
            headers = {"authorization": f"Bearer {key}", "x-user-id": CANARY, "x-api-key": key}
            errors.append(client.post("/v1/chat/completions", json={**body, "colour": key}, headers=headers))
            client.post("/v1/chat/completions", json=body, headers=headers)
            errors.append(client.get(f"/v1/models?key={key}", headers={"authorization": f"Basic {key}"}))
            errors.append(owner.ask("POST", "/keys", {"tenant": f"{key} {CANARY}"}))
            errors.append(owner.ask("POST", "/keys", {"scopes": [key]}))
            errors.append(owner.ask("GET", f"/keys?tenant={key}&limit={CANARY}"))
            errors.append(owner.ask("POST", f"/keys/{CANARY}/rotate", {"grace_s": CANARY}))
            errors.append(owner.ask("PUT", "/tenants/acme", {"limits": {CANARY: key}}))
        owner.get("POST", f"/keys/{first.id}/revoke")
        errors.append(client.post("/v1/chat/completions", json=body, headers=first.headers))
        shown = client.get("/metrics", headers=owner.headers).text + client.get("/stats", headers=owner.headers).text
        shown += httpx.Response(200, json=owner.get("GET", "/keys")).text
        shown += httpx.Response(200, json=owner.get("GET", "/audit")).text
        shown += client.get("/health").text
    server.stop()

    assert len({answer.status_code for answer in errors} & {400, 401}) == 2
    assert all(answer.status_code >= 400 for answer in errors)
    kept = b"".join(path.read_bytes() for path in server.data_dir.iterdir()).decode("latin-1")
    for key in (*secrets[:3], secrets[4]):
        secret = key.split("-")[2] if key.startswith("fb-") else key
        for place, text in (("log", server.log), ("shown", shown), ("data", kept)):
            assert secret not in text, place
        assert not [answer.text for answer in errors if secret in answer.text]
    assert CANARY not in server.log
    assert CANARY not in shown


def test_an_internal_error_tells_nothing(governed: ServerProcess, owner: AdminClient, service: httpx.Client) -> None:
    """A failure behind the door quotes neither the key nor the prompt."""
    key = owner.make()
    messages = [{"role": "user", "content": f"{CANARY} prompt"}]
    failing = {"messages": [*MESSAGES, *messages], "metadata": {"forebay_fail": "raise@0"}}
    answer = service.post("/v1/chat/completions", json=failing, headers=key.headers)
    assert answer.status_code == 500
    assert CANARY not in answer.text
    assert key.key not in governed.log
    assert f"{CANARY} prompt" not in governed.log
