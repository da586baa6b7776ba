"""Nobody grants what he does not hold (LiteLLM CVE-2026-47101, role in the body; CVE-2026-47102, another tenant)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.administrator import AdminClient, Made
from support.server import ServerProcess

LIMITS = {
    "requests_per_minute": 100,
    "tokens_per_minute": 1000,
    "max_concurrency": 4,
    "queue_share": 0.5,
    "budgets": [
        {"amount": 500, "unit": "tokens", "window": "day"},
        {"amount": 100, "unit": "tokens", "window": "day", "hard": False},
    ],
}


@pytest.fixture(scope="module")
def admin_key(owner: AdminClient) -> Made:
    """An admin of a tenant with limits, who may use one model."""
    owner.get("PUT", "/tenants/bounded", {"limits": LIMITS})
    return owner.make(tenant="bounded", role="admin", models=["alpha"])


@pytest.fixture(scope="module")
def admin(governed: ServerProcess, admin_key: Made) -> Iterator[AdminClient]:
    with AdminClient(governed, admin_key.key) as client:
        yield client


FORBIDDEN: list[tuple[dict[str, Any], str]] = [
    ({"role": "owner"}, "role"),
    ({"tenant": "default"}, "tenant"),
    ({"tenant": "Bounded"}, "tenant"),
    ({"models": None}, "models"),
    ({"models": ["alpha", "beta"]}, "models"),
    ({"gateway": True}, "gateway"),
    ({"limits": {"requests_per_minute": 101}}, "requests_per_minute"),
    ({"limits": {"tokens_per_minute": 1001}}, "tokens_per_minute"),
    ({"limits": {"max_concurrency": 5}}, "max_concurrency"),
    ({"limits": {"queue_share": 0.6}}, "queue_share"),
    ({"limits": {"budgets": [{"amount": 501, "unit": "tokens", "window": "day"}]}}, "budgets"),
]


@pytest.mark.parametrize(("fields", "param"), FORBIDDEN, ids=str)
def test_an_admin_makes_no_key_beyond_his_own(admin: AdminClient, fields: dict[str, Any], param: str) -> None:
    """Higher role, other tenant, more models, larger limits than the tenant's: 403 that names the field."""
    answer = admin.ask("POST", "/keys", {"tenant": "bounded", "models": ["alpha"], **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied"), answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(("fields", "param"), [case for case in FORBIDDEN if "tenant" not in case[0]], ids=str)
def test_nor_does_he_change_one_to_be(admin: AdminClient, fields: dict[str, Any], param: str) -> None:
    """The same on his own key and on others of his tenant; what was refused has changed nothing."""
    key = admin.make(tenant="bounded", models=["alpha"])
    before = admin.get("GET", f"/keys/{key.id}")
    answer = admin.ask("PATCH", f"/keys/{key.id}", fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (403, param), answer.text
    assert admin.get("GET", f"/keys/{key.id}") == before


def test_what_he_holds_he_may_give(admin: AdminClient) -> None:
    """Up to his own role and the tenant's limits; a tenant cannot be changed afterwards."""
    key = admin.make(tenant="bounded", role="admin", models=["alpha"], limits=LIMITS)
    answer = admin.ask("PATCH", f"/keys/{key.id}", {"tenant": "default"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tenant")


def test_his_own_key_is_not_his_to_raise(admin: AdminClient, admin_key: Made) -> None:
    """CVE-2026-47101: a key whose holder sends itself `owner` stays what it was."""
    answer = admin.ask("PATCH", f"/keys/{admin_key.id}", {"role": "owner"})
    assert answer.status_code == 403
    assert admin.ask("PUT", "/tenants/bounded", {"limits": {}}).status_code == 403
    assert admin.get("GET", "/tenants/bounded")["limits"]["requests_per_minute"] == 100
    assert [tenant["name"] for tenant in admin.get("GET", "/tenants")["data"]] == ["bounded"]


def test_an_owners_key_is_beyond_an_admin(owner: AdminClient, admin: AdminClient) -> None:
    """One that lives in his own tenant can be seen, and neither changed, nor rotated, nor revoked."""
    theirs = owner.make(tenant="bounded", role="owner")
    assert admin.get("GET", f"/keys/{theirs.id}")["role"] == "owner"
    for method, path, body in (
        ("PATCH", "", {"role": "member"}),
        ("POST", "/rotate", {}),
        ("POST", "/revoke", None),
        ("DELETE", "", None),
    ):
        assert admin.ask(method, f"/keys/{theirs.id}{path}", body).status_code == 403
    assert owner.get("GET", f"/keys/{theirs.id}")["status"] == "active"


def test_whoever_rotates_a_key_must_hold_what_it_holds(governed: ServerProcess, owner: AdminClient) -> None:
    """He is given its secret: an admin's key with one scope cannot get that of another admin with all."""
    full = owner.make(tenant="scoped", role="admin")
    with AdminClient(governed, owner.make(tenant="scoped", role="admin", scopes=["admin", "models"]).key) as narrow:
        refused = narrow.ask("POST", f"/keys/{full.id}/rotate", {})
        assert (refused.status_code, refused.json()["error"]["param"]) == (403, "scopes")
        for fields in ({}, {"scopes": ["chat"]}, {"role": "service"}):
            refused = narrow.ask("POST", "/keys", {"tenant": "scoped", **fields})
            assert (refused.status_code, refused.json()["error"]["param"]) == (403, "scopes")
        assert narrow.make(tenant="scoped", scopes=["models"])


def test_budgets_are_compared_by_unit_and_window(admin: AdminClient) -> None:
    """The tenant's budget of a day bounds no month, and one of tokens no money: the tenant's still hold for all."""
    for unit, window in (("tokens", "month"), ("money", "day")):
        budgets = [{"amount": 501, "unit": unit, "window": window}]
        admin.make(tenant="bounded", models=["alpha"], limits={"budgets": budgets})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"colour": "blue"}, "colour"),
        ({"limits": {"rpm": 1}}, "limits.rpm"),
        ({"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"limits": {"queue_share": 1.1}}, "limits.queue_share"),
        ({"limits": {"budgets": [{"amount": 1, "unit": "tokens", "window": "year"}]}}, "limits.budgets[0].window"),
        ({"role": "root"}, "role"),
        ({"role": None}, "role"),
        ({"scopes": ["everything"]}, "scopes[0]"),
        ({"role": "service", "scopes": ["admin"]}, "scopes"),
        ({"models": []}, "models"),
        ({"tenant": "../x"}, "tenant"),
        ({"tenant": ""}, "tenant"),
        ({"expires_at": 1_700_000_000}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"key": "fb-mine"}, "key"),
        ({"id": "mine"}, "id"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(owner: AdminClient, fields: dict[str, Any], param: str) -> None:
    """An owner too: 400 with the field, never a key without the limit that was meant."""
    answer = owner.ask("POST", "/keys", fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
