"""Operators' view of the cache: status, removal by id and in bulk, over the admin API and on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from support.administrator import OWNER, AdminClient, Made
from support.cached import Asker, cached_server
from support.command import forebay
from support.server import ServerProcess
from support.wire import eventually


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with cached_server(tmp_path_factory.mktemp("administered")) as running:
        yield running


@pytest.fixture(scope="module")
def owner(server: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(server, OWNER) as client:
        yield client


@pytest.fixture
def keys(owner: AdminClient, request: pytest.FixtureRequest) -> dict[str, Made]:
    """An admin's key of a tenant of the test's own, and one of another."""
    name = request.node.name[-24:]
    return {tenant: owner.make(tenant=f"{tenant}-{name}", role="admin") for tenant in ("own", "other")}


def stored(admin: AdminClient, tenant_of: str) -> int:
    """Answers, once all that wait are written."""
    tenants = admin.get("GET", "/cache")["tenants"]
    return sum(one["num_entries"] for one in tenants if one["tenant"].startswith(tenant_of))


def test_one_answer_is_removed_by_its_id(server: ServerProcess, owner: AdminClient, keys: dict[str, Made]) -> None:
    """By an admin of its tenant, or an owner; to another tenant's admin it does not exist. The audit knows."""
    with (
        closing(Asker(server, keys["own"].key)) as asker,
        AdminClient(server, keys["own"].key) as own,
        AdminClient(server, keys["other"].key) as other,
    ):
        entry_id = asker.ask("One?").headers["x-cache-id"]
        eventually(lambda: stored(own, "own") == 1)
        assert other.ask("DELETE", f"/cache/{entry_id}").status_code == 404
        assert asker.outcome("One?") == "hit"
        assert own.get("DELETE", f"/cache/{entry_id}")["num_removed"] == 1
        assert own.ask("DELETE", f"/cache/{entry_id}").status_code == 404
        assert asker.outcome("One?") == "miss"
    newest = owner.get("GET", "/audit")["data"][0]
    assert (newest["act"], newest["target"], newest["actor"]) == ("cache.delete", entry_id, keys["own"].id)


def test_a_tenants_answers_are_removed_together(server: ServerProcess, keys: dict[str, Made]) -> None:
    """An admin reaches his own tenant's only, and sees no others'."""
    with (
        closing(Asker(server, keys["own"].key)) as one,
        closing(Asker(server, keys["other"].key)) as two,
        AdminClient(server, keys["own"].key) as own,
        AdminClient(server, keys["other"].key) as other,
    ):
        for number in range(3):
            one.ask(f"Number {number}?")
        two.ask("Number 0?")
        eventually(lambda: stored(own, "own") == 3 and stored(other, "other") == 1)
        tenant = other.get("GET", "/cache")["tenants"][0]["tenant"]
        assert own.ask("POST", "/cache/purge", {"tenant": tenant}).status_code == 403
        assert own.get("POST", "/cache/purge", {"model": "no such model"})["num_removed"] == 0
        assert own.get("POST", "/cache/purge", {"epoch": 0})["num_removed"] == 0
        assert own.get("POST", "/cache/purge", {})["num_removed"] == 3
        assert [one.outcome("Number 1?"), two.outcome("Number 0?")] == ["miss", "hit"]
        assert own.get("GET", "/cache")["tenants"] == own.get("GET", "/cache")["tenants"]


def test_the_command_line_removes_what_a_running_server_holds(
    server: ServerProcess, owner: AdminClient, keys: dict[str, Made]
) -> None:
    """In its memory, too, within a second; it says how much there is."""
    with closing(Asker(server, keys["own"].key)) as asker:
        first, second = asker.ask("One?"), asker.ask("Two?")
        eventually(lambda: stored(owner, "own") >= 2)
        tenant = asker.row(first)["tenant"]
        assert re.search(rf"{tenant} +2 ", forebay("cache", "status", data_dir=server.data_dir).stdout)
        entry_id = second.headers["x-cache-id"]
        assert forebay("cache", "purge", "--id", entry_id, data_dir=server.data_dir).stdout == "1 answers removed.\n"
        eventually(lambda: asker.ask("Two?", headers={"cache-control": "only-if-cached"}).status_code == 504)
        assert asker.outcome("One?") == "hit"
        assert forebay("cache", "purge", "--tenant", tenant, data_dir=server.data_dir).stdout == "1 answers removed.\n"
        eventually(lambda: asker.ask("One?", headers={"cache-control": "only-if-cached"}).status_code == 504)
        assert forebay("cache", "purge", data_dir=server.data_dir).returncode == 2
    assert [row["act"] for row in owner.get("GET", "/audit")["data"][:2]] == ["cache.purge", "cache.delete"]


def test_metrics_tell_what_the_cache_does(server: ServerProcess) -> None:
    """Look-ups by outcome, what is stored, and no name of a tenant or text of a question."""
    with closing(Asker(server)) as asker:
        before = metrics(server)
        asker.ask("A question of the metrics?")
        asker.ask("A question of the metrics?")
        asker.ask("A question of the metrics?", temperature=1)
        after = metrics(server)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('forebay_cache_lookups_total{outcome="hit",tier="exact"}') == 1
    assert grown('forebay_cache_lookups_total{outcome="miss",tier="exact"}') == 1
    assert grown('forebay_cache_lookups_total{outcome="bypass",tier="exact"}') == 1
    assert grown('forebay_cache_bypasses_total{reason="chance"}') == 1
    assert grown("forebay_cache_stored_total") == 1
    assert after["forebay_cache_memory_bytes"] > 0
    assert after['forebay_cache_store_up{calls="reads"}'] == 1
    eventually(lambda: metrics(server)["forebay_cache_entries"] >= 1)  # it is written behind the request's back
    assert metrics(server)["forebay_cache_bytes"] > 0


def metrics(server: ServerProcess) -> dict[str, float]:
    text = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {OWNER}"}).text
    return {name: float(value) for name, value in re.findall(r"^(forebay_cache\S*) (\S+)$", text, re.MULTILINE)}
