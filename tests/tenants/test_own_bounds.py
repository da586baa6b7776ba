"""What bounds an admin's own key bounds each that he gives: he could use it in place of his own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.administrator import AdminClient, Made
from support.server import ServerProcess

END = 4_000_000_000
BOUNDS: dict[str, Any] = {
    "expires_at": END,
    "priority": "batch",
    "limits": {
        "requests_per_minute": 100,
        "queue_share": 0.5,
        "budgets": [
            {"amount": 500, "unit": "tokens", "window": "day"},
            {"amount": 5, "unit": "money", "window": "day", "hard": False},
        ],
    },
}


@pytest.fixture(scope="module")
def admin_key(owner: AdminClient) -> Made:
    return owner.make(tenant="own", role="admin", **BOUNDS)


@pytest.fixture(scope="module")
def admin(governed: ServerProcess, admin_key: Made) -> Iterator[AdminClient]:
    with AdminClient(governed, admin_key.key) as client:
        yield client


def limits(**fields: Any) -> dict[str, Any]:
    return {"limits": BOUNDS["limits"] | fields}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"expires_at": None}, "expires_at"),
        ({"expires_at": END + 1}, "expires_at"),
        ({"priority": "interactive"}, "priority"),
        (limits(requests_per_minute=None), "requests_per_minute"),
        (limits(requests_per_minute=101), "requests_per_minute"),
        (limits(queue_share=0.6), "queue_share"),
        (limits(budgets=[]), "budgets"),
        (limits(budgets=[{"amount": 501, "unit": "tokens", "window": "day"}]), "budgets"),
        (limits(budgets=[{"amount": 500, "unit": "tokens", "window": "day", "hard": False}]), "budgets"),
        (limits(budgets=[{"amount": 500, "unit": "tokens", "window": "week"}]), "budgets"),
    ],
    ids=str,
)
def test_he_neither_undoes_his_own_nor_makes_a_key_without(
    admin: AdminClient, admin_key: Made, fields: dict[str, Any], param: str
) -> None:
    """403 that names the field, for a new key, another's and his own."""
    made = admin.make(tenant="own", **BOUNDS)
    for method, path, body in (
        ("POST", "/keys", {"tenant": "own", **BOUNDS, **fields}),
        ("PATCH", f"/keys/{made.id}", fields),
        ("PATCH", f"/keys/{admin_key.id}", fields),
    ):
        answer = admin.ask(method, path, body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (403, param), answer.text


def test_nor_takes_the_secret_of_a_key_without(owner: AdminClient, admin: AdminClient) -> None:
    """Who rotates a key is given its secret."""
    free = owner.make(tenant="own")
    answer = admin.ask("POST", f"/keys/{free.id}/rotate", {})
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "expires_at")


def test_sums_of_all_tenants_are_an_owners_to_show(
    governed: ServerProcess, owner: AdminClient, service: httpx.Client
) -> None:
    """An admin sees /stats and /metrics only with a key to which an owner gave `metrics`, and cannot hand it on."""
    plain = owner.make(tenant="sums", role="admin")
    given = owner.make(tenant="sums", role="admin", scopes=["admin", "metrics"])
    for path in ("/stats", "/metrics"):
        assert service.get(path, headers=plain.headers).status_code == 403
        assert service.get(path, headers=given.headers).status_code == 200
    for key in (plain, given):
        with AdminClient(governed, key.key) as client:
            body = {"tenant": "sums", "role": "admin", "scopes": ["metrics"]}
            answer = client.ask("POST", "/keys", body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (403, "scopes")


def test_what_runs_here_names_only_a_keys_models(owner: AdminClient, service: httpx.Client) -> None:
    """Other tenants' names are not for every key."""
    for models, names in ((["beta"], ["beta"]), (None, ["alpha", "beta"])):
        answer = service.get("/model/info", headers=owner.make(models=models).headers)
        assert answer.json()["names"] == names
