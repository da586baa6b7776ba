"""The life of a key over the admin API, and what its fields do at the door of the service."""

from __future__ import annotations

import time

import httpx

from support.administrator import AdminClient
from support.door import MESSAGES
from support.server import ServerProcess
from support.wire import eventually


def allowed(service: httpx.Client, key: str) -> bool:
    return service.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_a_key_is_shown_once(owner: AdminClient, service: httpx.Client) -> None:
    """Its secret is in the answer that makes it, and in no other; it works at once."""
    made = owner.get("POST", "/keys", {"tenant": "acme", "name": "web shop"})
    assert allowed(service, made["key"])
    assert made["hint"] == f"fb-{made['id']}-...{made['key'][-4:]}"
    shown = owner.get("GET", f"/keys/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name != "key"}
    assert made["key"].split("-")[2] not in httpx.Response(200, json=owner.get("GET", "/keys?limit=1000")).text


def test_defaults_ask_for_nothing(owner: AdminClient) -> None:
    """A member of the tenant `default` without limits, for ever."""
    made = owner.get("POST", "/keys", {})
    assert (made["tenant"], made["role"], made["status"], made["scopes"]) == ("default", "member", "active", [])
    assert (made["models"], made["strict"], made["expires_at"], made["gateway"]) == (None, None, None, False)
    assert made["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "max_concurrency": None,
        "queue_share": None,
        "budgets": [],
    }


def test_changes_hold_from_the_next_request_on(owner: AdminClient, service: httpx.Client) -> None:
    """What is left out stays; null takes a field back; limits are changed one by one."""
    limits = {
        "requests_per_minute": 1000,
        "budgets": [{"amount": 7, "unit": "money", "window": "month", "hard": False}],
    }
    key = owner.make(tenant="acme", name="one", limits=limits)
    assert allowed(service, key.key)
    changed = owner.get("PATCH", f"/keys/{key.id}", {"scopes": ["chat"], "limits": {"max_concurrency": 2}})
    assert not allowed(service, key.key)
    assert changed["name"] == "one"
    assert changed["limits"] | limits == changed["limits"]
    assert changed["limits"]["max_concurrency"] == 2
    changed = owner.get(
        "PATCH", f"/keys/{key.id}", {"scopes": [], "limits": {"requests_per_minute": None, "budgets": []}}
    )
    assert allowed(service, key.key)
    assert (changed["limits"]["requests_per_minute"], changed["limits"]["budgets"]) == (None, [])
    owner.get("PATCH", f"/keys/{key.id}", {"models": ["nothing"]})
    assert service.get("/v1/models", headers=key.headers).json()["data"] == []
    owner.get("PATCH", f"/keys/{key.id}", {"models": None})
    assert len(service.get("/v1/models", headers=key.headers).json()["data"]) == 2


def test_a_key_may_be_laxer_than_the_server(owner: AdminClient, service: httpx.Client) -> None:
    """`strict` false: unknown fields are listed, not refused; null: as the server is set."""
    body = {"messages": MESSAGES, "max_tokens": 1, "colour": "blue"}
    lax, strict = owner.make(strict=False), owner.make()
    answer = service.post("/v1/chat/completions", json=body, headers=lax.headers)
    assert (answer.status_code, answer.headers["x-ignored-params"]) == (200, "colour")
    assert service.post("/v1/chat/completions", json=body, headers=strict.headers).status_code == 400


def test_rotation_overlaps(owner: AdminClient, service: httpx.Client) -> None:
    """Both secrets work during the grace, then only the new one; the key stays the same for limits and bills."""
    key = owner.make(tenant="acme", models=["alpha"])
    rotated = owner.get("POST", f"/keys/{key.id}/rotate", {"grace_s": 1})
    assert rotated["id"] == key.id
    assert rotated["key"] != key.key
    assert rotated["models"] == ["alpha"]
    assert [secret["ends_at"] is None for secret in rotated["secrets"]] == [True, False]
    assert allowed(service, key.key)
    assert allowed(service, rotated["key"])
    eventually(lambda: not allowed(service, key.key))
    assert allowed(service, rotated["key"])
    newest = owner.get("POST", f"/keys/{key.id}/rotate", {"grace_s": 0})
    assert not allowed(service, rotated["key"])
    assert allowed(service, newest["key"])


def test_a_grace_is_not_lengthened(owner: AdminClient, service: httpx.Client) -> None:
    """A secret that is about to end does not live on because the key is rotated again."""
    key = owner.make()
    first = owner.get("POST", f"/keys/{key.id}/rotate", {"grace_s": 1})
    again = owner.get("POST", f"/keys/{key.id}/rotate", {"grace_s": 1000})
    ends = {secret["last_four"]: secret["ends_at"] for secret in again["secrets"]}
    assert ends[key.key[-4:]] <= time.time() + 2
    assert ends[first["key"][-4:]] >= time.time() + 900
    eventually(lambda: not allowed(service, key.key))
    assert allowed(service, first["key"])


def test_a_key_has_no_more_than_so_many_secrets(owner: AdminClient, service: httpx.Client) -> None:
    """Whoever rotates it ever again: the oldest end before their grace does, and nothing is kept of them."""
    key = owner.make()
    keys = [key.key, *(owner.get("POST", f"/keys/{key.id}/rotate", {})["key"] for _ in range(9))]
    assert [allowed(service, one) for one in keys] == [False, False, *[True] * 8]
    assert len(owner.get("GET", f"/keys/{key.id}")["secrets"]) == 8


def test_a_revoked_key_is_refused_and_its_stream_goes_on(
    governed: ServerProcess, owner: AdminClient, service: httpx.Client
) -> None:
    """From the answer to the revocation on; what was begun before ends as it should. It cannot be undone."""
    key = owner.make()
    script = {"forebay_script": "word " * 40, "forebay_inter_token_ms": "10"}
    body = {"messages": MESSAGES, "stream": True, "metadata": script}
    with service.stream("POST", "/v1/chat/completions", json=body, headers=key.headers) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        assert owner.get("POST", f"/keys/{key.id}/revoke")["status"] == "revoked"
        assert not allowed(service, key.key)
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert owner.get("DELETE", f"/keys/{key.id}")["status"] == "revoked"
    for method, path, body in (("PATCH", "", {"name": "again"}), ("POST", "/rotate", {})):
        answer = owner.ask(method, f"/keys/{key.id}{path}", body)
        assert (answer.status_code, "revoked" in answer.json()["error"]["message"]) == (400, True)


def test_an_expired_key_lives_again_by_its_end_alone(owner: AdminClient, service: httpx.Client) -> None:
    """It stops without a restart; a new secret would be as dead, a later end is not."""
    key = owner.make(expires_at=int(time.time()) + 1)
    eventually(lambda: not allowed(service, key.key))
    assert owner.get("GET", f"/keys/{key.id}")["status"] == "expired"
    assert owner.ask("POST", f"/keys/{key.id}/rotate", {}).status_code == 400
    owner.get("PATCH", f"/keys/{key.id}", {"expires_at": None})
    assert allowed(service, key.key)


def test_keys_are_listed_by_pages(owner: AdminClient) -> None:
    """Each key once, by id, of one tenant or all."""
    made = {owner.make(tenant="paged").id for _ in range(5)}
    pages, after = [], ""
    while True:
        page = owner.get("GET", f"/keys?tenant=paged&limit=2&after={after}")
        pages += [key["id"] for key in page["data"]]
        if not page["has_more"]:
            break
        after = pages[-1]
    assert pages == sorted(made)
    for query in ("limit=0", "limit=1001", "limit=x", "after=" + "a" * 65):
        assert owner.ask("GET", f"/keys?{query}").status_code == 400


def test_tenants_have_limits_of_their_own(owner: AdminClient) -> None:
    """Set as a whole; listed with those that only have keys."""
    owner.make(tenant="only-a-key")
    limits = {"tokens_per_minute": 5, "budgets": [{"amount": 9, "unit": "tokens", "window": "total", "hard": True}]}
    put = owner.get("PUT", "/tenants/limited", {"limits": limits})
    assert put["limits"] | limits == put["limits"]
    assert owner.get("GET", "/tenants/limited") == put
    names = [tenant["name"] for tenant in owner.get("GET", "/tenants?limit=1000")["data"]]
    assert {"only-a-key", "limited"} <= set(names)
    assert names == sorted(names)
    assert owner.get("PUT", "/tenants/limited", {"limits": {}})["limits"]["tokens_per_minute"] is None
    assert owner.ask("PUT", "/tenants/limited", {}).status_code == 400
    assert owner.ask("PUT", "/tenants/" + "x" * 65, {"limits": {}}).status_code == 400
    (first,) = (page := owner.get("GET", "/tenants?limit=1"))["data"]
    assert page["has_more"]
    (second,) = owner.get("GET", f"/tenants?limit=1&after={first['name']}")["data"]
    assert [first["name"], second["name"]] == names[:2]


def test_the_document_describes_the_admin_api(governed: ServerProcess, owner: AdminClient) -> None:
    """Its own OpenAPI document, on its own listener, with every route of it."""
    answer = httpx.get(f"{governed.admin_url}/openapi.json", headers=owner.headers)
    paths = answer.json()["paths"]
    assert {"/admin/keys", "/admin/keys/{key_id}", "/admin/tenants/{name}", "/admin/audit"} <= paths.keys()
    assert not any(path.startswith("/v1/") for path in paths)
    body = paths["/admin/keys"]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    assert body.rpartition("/")[2] in answer.json()["components"]["schemas"]
    assert httpx.get(f"{governed.url}/openapi.json", headers=owner.headers).json()["paths"].keys().isdisjoint(paths)
