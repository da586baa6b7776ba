"""Every route of both listeners x who asks. CVE-2026-48710, CVE-2026-48746: authorisation is no matter of paths."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from fastapi.routing import APIRoute

from forebay.admin_app import create_admin_app
from forebay.app import create_app
from forebay.services import build_services
from forebay.settings import Settings
from forebay.tenants.key_format import new_id, new_key
from support.administrator import OWNER, AdminClient, Made
from support.door import BODIES, MESSAGES
from support.server import ServerProcess
from support.wire import eventually

MODELS = ("alpha", "beta")
ASKED = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/generate": "completions",
    "/tokenize": "tokens",
    "/detokenize": "tokens",
    "/v1/models": "models",
    "/v1/models/{model_id:path}": "models",
    "/model/info": "models",
    "/stats": "metrics",
    "/metrics": "metrics",
    "/v1/organization/usage/completions": "usage",
    "/v1/organization/costs": "usage",
    "/": None,
    "/docs": None,
    "/openapi.json": None,
}
"""The scope that each route of the service asks for; None: any key will do. On the admin listener it is `admin`."""
OPEN = {"/live", "/ready", "/health"}
MODEL_SCOPES = {"chat", "completions", "tokens", "models"}
HELD = {
    "service": MODEL_SCOPES,
    "member": MODEL_SCOPES | {"usage"},
    "admin": MODEL_SCOPES | {"usage", "admin"},
    "owner": MODEL_SCOPES | {"usage", "metrics", "admin"},
}
OWNERS_ONLY = {("PUT", "/admin/tenants/{name}"), ("GET", "/admin/usage/reconcile")}
NOBODY = "0000000000"
"""An id that no key has: what may be asked is not found."""
ADMIN_BODIES = {
    ("POST", "/admin/keys"): {"tenant": "matrix"},
    ("PATCH", "/admin/keys/{key_id}"): {"name": "x"},
    ("POST", "/admin/keys/{key_id}/rotate"): {},
    ("PUT", "/admin/tenants/{name}"): {"limits": {}},
    ("POST", "/admin/cache/purge"): {"tenant": "matrix"},
    ("POST", "/admin/cache/explain"): {"asked": "Is it deep?", "stored": "How deep is it?", "owner": "matrix"},
    ("PUT", "/admin/cache/labels/{owner}"): {"state": None},
}


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    admin: bool

    @property
    def scope(self) -> str | None:
        return "admin" if self.admin else ASKED[self.template]

    def ask(self, base_url: str, client: httpx.Client, key_id: str = NOBODY, **headers: str) -> httpx.Response:
        path = self.template.replace("{model_id:path}", MODELS[0]).replace("{key_id}", key_id)
        path = path.replace("{name}", "matrix").replace("{owner}", "matrix")
        body = ADMIN_BODIES.get((self.method, self.template)) if self.admin else BODIES.get(path)
        return client.request(
            self.method,
            base_url + path,
            json=body if self.method in ("POST", "PATCH", "PUT") else None,
            headers=headers,
        )


def routes() -> list[Route]:
    settings = Settings(engine="scripted")
    services = build_services(settings)
    apps = (create_app(settings, services), create_admin_app(settings, services))
    for app in apps:
        assert all(isinstance(route, APIRoute) for route in app.routes), "a route that has no dependencies"
    return [
        Route(method, route.path, admin)
        for admin, app in enumerate(apps)
        for route in app.routes
        if isinstance(route, APIRoute) and route.path not in OPEN
        for method in sorted(route.methods)
    ]


ROUTES = routes()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as connected:
        yield connected


@pytest.fixture(scope="module")
def place(governed: ServerProcess) -> dict[bool, str]:
    """Where the service and the admin API are."""
    return {False: governed.url, True: governed.admin_url}


@pytest.fixture(scope="module")
def bad_keys(owner: AdminClient, client: httpx.Client, governed: ServerProcess) -> dict[str, str]:
    """Keys that open nothing, and why."""
    good, revoked = owner.make(role="owner"), owner.make(role="owner")
    expired = owner.make(role="owner", expires_at=int(time.time()) + 1)
    owner.get("POST", f"/keys/{revoked.id}/revoke")
    eventually(lambda: client.get(f"{governed.url}/", headers=expired.headers).status_code == 401)
    last = "a" if good.key[-1] != "a" else "b"
    return {
        "unknown": new_key(new_id()),
        "unknown secret of a known id": new_key(good.id),
        "bad checksum": good.key[:-1] + last,
        "cut off": good.key[:-1],
        "not ours": "sk-" + "a" * 40,
        "expired": expired.key,
        "revoked": revoked.key,
        "an id": good.id,
        "the settings' but one character": OWNER[:-1],
    }


def check_unauthenticated(answer: httpx.Response, route: Route, why: str) -> None:
    assert answer.status_code == 401, (route, why, answer.text)
    assert answer.headers["www-authenticate"] == "Bearer"
    if route.method != "HEAD":
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_the_table_is_of_this_service() -> None:
    """A route that is added is added to it, with the scope that it asks for."""
    assert {route.template for route in ROUTES if not route.admin} == set(ASKED)
    assert {(route.method, route.template) for route in ROUTES if route.admin} >= set(ADMIN_BODIES)
    assert all(
        route.template.startswith("/admin/") or route.template == "/openapi.json" for route in ROUTES if route.admin
    )


def test_without_a_good_key_nothing_is_answered(
    client: httpx.Client, place: dict[bool, str], bad_keys: dict[str, str]
) -> None:
    """No key, a bad one, one that has ended; whatever Host is claimed."""
    for route in ROUTES:
        base = place[route.admin]
        check_unauthenticated(route.ask(base, client), route, "no key")
        for host in ("localhost", "127.0.0.1:8001", "/live"):
            check_unauthenticated(route.ask(base, client, host=host), route, f"host {host}")
        for why, key in bad_keys.items():
            check_unauthenticated(route.ask(base, client, authorization=f"Bearer {key}"), route, why)


@pytest.mark.parametrize("role", HELD)
def test_a_role_opens_its_routes_and_no_others(
    client: httpx.Client, place: dict[bool, str], owner: AdminClient, role: str
) -> None:
    """What the role does not hold is 403, what it holds is answered; the refusal is the same for all."""
    key = owner.make(role=role, tenant="matrix")
    for route in ROUTES:
        answer = route.ask(place[route.admin], client, **key.headers)
        holds = route.scope is None or route.scope in HELD[role]
        if not holds or (role != "owner" and (route.method, route.template) in OWNERS_ONLY):
            check_forbidden(answer, route)
        else:
            assert answer.status_code in (200, 404), (route, role, answer.text)


def check_forbidden(answer: httpx.Response, route: Route) -> None:
    assert answer.status_code == 403, (route, answer.text)
    if route.method != "HEAD":
        assert answer.json()["error"]["type"] == "permission_error"
        assert answer.json()["error"]["code"] == "permission_denied"


@pytest.mark.parametrize("scope", sorted(HELD["owner"]))
def test_a_scope_opens_its_routes_and_no_others(
    client: httpx.Client, place: dict[bool, str], owner: AdminClient, scope: str
) -> None:
    """Even an owner's key is held to the scopes that were chosen for it."""
    key = owner.make(role="owner", scopes=[scope])
    for route in ROUTES:
        answer = route.ask(place[route.admin], client, **key.headers)
        if route.scope not in (None, scope):
            check_forbidden(answer, route)
        elif (route.method, route.template) == ("POST", "/admin/keys"):
            assert answer.status_code == 403  # it would give scopes that it does not hold
        else:
            assert answer.status_code in (200, 404), (route, scope, answer.text)


def test_another_tenants_keys_do_not_exist(client: httpx.Client, place: dict[bool, str], owner: AdminClient) -> None:
    """An admin of one tenant neither sees nor touches those of another, and cannot tell them from none."""
    theirs = owner.make(tenant="matrix", name="canary-theirs")
    stranger = owner.make(tenant="elsewhere", role="admin")
    for route in ROUTES:
        if not route.admin:
            continue
        answer = route.ask(place[True], client, theirs.id, **stranger.headers)
        assert theirs.id not in answer.text.replace(f"`{theirs.id}`", "")
        assert "canary-theirs" not in answer.text
        if "{key_id}" in route.template:
            unknown = route.ask(place[True], client, **stranger.headers)
            assert (answer.status_code, unknown.status_code) == (404, 404), (route, answer.text)
            assert answer.text.replace(theirs.id, NOBODY) == unknown.text
        elif "{name}" in route.template or route.method == "POST":
            assert answer.status_code in (403, 404), (route, answer.text)
    still = owner.get("GET", f"/keys/{theirs.id}")
    assert (still["status"], still["name"]) == ("active", "canary-theirs")
    assert owner.ask("GET", "/keys?tenant=matrix").status_code == 200
    answer = client.get(f"{place[True]}/admin/keys?tenant=matrix", headers=stranger.headers)
    assert answer.status_code == 403


def test_an_unauthorised_body_is_not_read(governed: ServerProcess, client: httpx.Client, owner: AdminClient) -> None:
    """Nothing of a stranger's is parsed: a malformed body gets the same refusal."""
    key = owner.make(scopes=["models"])
    for headers, status in (({}, 401), (key.headers, 403)):
        for content in (b"{", b"[" * 100, b"\xff"):
            for url in (f"{governed.url}/v1/chat/completions", f"{governed.admin_url}/admin/keys"):
                answer = client.post(url, content=content, headers={**headers, "content-type": "application/json"})
                assert answer.status_code == status, answer.text


def test_a_model_that_a_key_may_not_use(governed: ServerProcess, client: httpx.Client, owner: AdminClient) -> None:
    """403 on every route that takes a name, and the list holds only those that it may use."""
    key: Made = owner.make(models=[MODELS[1]])
    with httpx.Client(base_url=governed.url, headers=key.headers, timeout=30) as limited:
        listed = limited.get("/v1/models").json()["data"]
        assert [model["id"] for model in listed] == [MODELS[1]]
        assert limited.get(f"/v1/models/{MODELS[0]}").status_code == 403
        assert limited.get(f"/v1/models/{MODELS[1]}").status_code == 200
        for path in ("/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize"):
            for model, status in ((MODELS[0], 403), (MODELS[1], 200), (None, 200), ("gamma", 404)):
                answer = limited.post(path, json={**BODIES[path], "model": model})
                assert answer.status_code == status, (path, model, answer.text)
                if status != 200:
                    assert answer.json()["error"]["param"] == "model"
                    assert status != 404 or MODELS[0] not in answer.json()["error"]["message"]
        named = limited.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 1})
        assert named.json()["model"] == MODELS[1]
    nothing = owner.make(models=["gamma"])
    assert client.post(f"{governed.url}/generate", json={"prompt": "x"}, headers=nothing.headers).status_code == 403
