"""Every route of the service x another tenant's caller, generated from the router and from what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from support.administrator import OWNER, AdminClient, Made
from support.door import BODIES
from support.keyed import keyed
from support.server import ServerProcess
from support.wire import eventually
from tenants.test_every_route import HELD, MODELS, ROUTES, Route

SERVICE = [route for route in ROUTES if not route.admin]
TENANT, USER, TEAM = "canary-tenant", "canary-user", "canary-team"
PROMPT = "canary-prompt"
RETRY = keyed("canary-retry-0123")
HARMLESS = {"start_time", "end_time", "bucket_width", "limit", "page", "batch"}
"""Parameters of a query that name nobody."""


@dataclass(frozen=True)
class Theirs:
    """A tenant that has asked every route, and the words by which it would be known."""

    admin: Made
    key: Made

    @property
    def words(self) -> tuple[str, ...]:
        return TENANT, USER, TEAM, PROMPT, self.key.id

    @property
    def names(self) -> dict[str, list[str]]:
        """What a query's parameter can name of it."""
        return {
            "project_ids": [TENANT],
            "user_ids": [USER],
            "api_key_ids": [self.key.id],
            "models": [MODELS[0]],
            "line_items": [MODELS[0]],
            "group_by": ["project_id", "user_id", "api_key_id", "metadata.team"],
        }

    def said_in(self, answer: httpx.Response) -> list[str]:
        said = answer.text + repr(answer.headers)
        return [word for word in self.words if word in said]


@pytest.fixture(scope="module")
def http(governed: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=governed.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def parameters(http: httpx.Client) -> dict[Route, list[str]]:
    """Of each route's query."""
    paths = http.get("/openapi.json", headers={"authorization": f"Bearer {OWNER}"}).json()["paths"]

    def of(route: Route) -> list[str]:
        operation = paths.get(route.template.replace(":path}", "}"), {}).get(route.method.lower(), {})
        return [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]

    return {route: of(route) for route in SERVICE}


def ask(
    http: httpx.Client, route: Route, who: Made, query: dict[str, list[str]] | None = None, **fields: Any
) -> httpx.Response:
    """With one Idempotency-Key, whoever asks."""
    path = route.template.replace("{model_id:path}", MODELS[0])
    body = None
    if route.method == "POST":
        body = BODIES[path] | ({"prompt": PROMPT} if "prompt" in BODIES[path] else {})
        body |= fields if path.startswith("/v1/") else {}
    return http.request(route.method, path, json=body, params=query, headers=who.headers | RETRY)


@pytest.fixture(scope="module")
def theirs(owner: AdminClient, http: httpx.Client) -> Theirs:
    made = Theirs(owner.make(tenant=TENANT, role="admin"), owner.make(tenant=TENANT, role="member"))
    for route in SERVICE:
        answer = ask(http, route, made.key, user=USER, metadata={"team": TEAM})
        assert answer.status_code in (200, 403), (route, answer.text)
    usage = "/v1/organization/usage/completions?group_by=user_id"
    eventually(lambda: USER in http.get(usage, headers=made.admin.headers).text)
    return made


def queries(theirs: Theirs, names: list[str]) -> Iterator[dict[str, list[str]]]:
    """Nothing, each parameter that could name them, and each with everything that could show them."""
    known = theirs.names
    assert set(names) <= known.keys() | HARMLESS, "a parameter that is added is added to `names` or to `HARMLESS`"
    naming = [name for name in names if name in known]
    yield {}
    for name in naming:
        yield {name: known[name]}
        if "group_by" in naming:
            yield {name: known[name], "group_by": known["group_by"]}


@pytest.mark.parametrize("role", [role for role in HELD if role != "owner"])
def test_nothing_of_another_tenant_is_answered(
    owner: AdminClient, http: httpx.Client, theirs: Theirs, parameters: dict[Route, list[str]], role: str
) -> None:
    """Whatever its caller is at home, and whatever he names; his request is no repetition of theirs."""
    stranger = owner.make(tenant=f"stranger-{role}", role=role)
    for route in SERVICE:
        for query in queries(theirs, parameters[route]):
            answer = ask(http, route, stranger, query)
            assert answer.status_code in (200, 403), (route, query, answer.text)
            own = {PROMPT} if route.method == "POST" else set()
            assert set(theirs.said_in(answer)) <= own, (route, query, answer.text)
            assert "idempotent-replayed" not in answer.headers, route


def test_they_themselves_are_shown_it(http: httpx.Client, theirs: Theirs, parameters: dict[Route, list[str]]) -> None:
    """By the same requests: else there would be nothing to be found."""
    shown: set[str] = set()
    for route in SERVICE:
        if route.method == "GET":
            for query in queries(theirs, parameters[route]):
                shown.update(theirs.said_in(ask(http, route, theirs.admin, query)))
    assert shown >= {TENANT, USER, TEAM, theirs.key.id}
    again = {
        route.template
        for route in SERVICE
        if "idempotent-replayed" in ask(http, route, theirs.key, user=USER, metadata={"team": TEAM}).headers
    }
    assert again >= {"/v1/chat/completions", "/v1/completions"}
