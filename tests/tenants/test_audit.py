"""What administrators did is written down: once, with who and from where, and for good."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import time
from contextlib import closing

import pytest

from forebay.stores.sqlite import open_file
from support.administrator import AdminClient
from support.command import forebay
from support.server import ServerProcess


def test_each_act_is_one_row(governed: ServerProcess, owner: AdminClient) -> None:
    """Who, what, to whom, when, over which way in, and what was given; never a secret. The newest comes first."""
    began = int(time.time())
    key = owner.make(tenant="audited", name="one")
    owner.get("PATCH", f"/keys/{key.id}", {"limits": {"requests_per_minute": 3}})
    rotated = owner.get("POST", f"/keys/{key.id}/rotate", {"grace_s": 7})
    owner.get("POST", f"/keys/{key.id}/revoke")
    owner.get("POST", f"/keys/{key.id}/revoke")  # again: nothing happens, nothing is written
    owner.get("PUT", "/tenants/audited", {"limits": {"tokens_per_minute": 9}})
    done = forebay("keys", "create", "--tenant", "audited", "--json", data_dir=governed.data_dir)
    made = json.loads(done.stdout)

    rows = [row for row in owner.get("GET", "/audit")["data"] if row["tenant"] == "audited"]
    acts = [(row["act"], row["target"], row["via"]) for row in reversed(rows)]
    assert acts == [
        ("key.create", key.id, "api"),
        ("key.change", key.id, "api"),
        ("key.rotate", key.id, "api"),
        ("key.revoke", key.id, "api"),
        ("tenant.set", "audited", "api"),
        ("key.create", made["id"], "cli"),
    ]
    created, changed, rotation, *_, from_command = reversed(rows)
    assert created["details"]["name"] == "one"
    assert changed["details"] == {"policy": {"requests_per_minute": 3}}
    assert rotation["details"] == {"grace_s": 7.0}
    assert len({row["actor"] for row in rows}) == 2
    assert from_command["actor"] == f"os:{pwd.getpwuid(os.getuid()).pw_name}"
    assert all(began <= row["at"] <= time.time() for row in rows)
    for secret in (key.key, rotated["key"], made["key"]):
        assert secret.split("-")[2] not in json.dumps(rows)


def test_an_admin_reads_his_own_tenants_rows(governed: ServerProcess, owner: AdminClient) -> None:
    """And no others; who acted is the key's id, never its secret."""
    mine = owner.make(tenant="audit-a", role="admin")
    owner.make(tenant="audit-b")
    with AdminClient(governed, mine.key) as admin:
        admin.make(tenant="audit-a")
        rows = admin.get("GET", "/audit?limit=1000")["data"]
    assert {row["tenant"] for row in rows} == {"audit-a"}
    assert rows[0]["actor"] == mine.id


def test_rows_are_read_by_pages(owner: AdminClient) -> None:
    """Each row once, from the newest to the first."""
    for _ in range(5):
        owner.make(tenant="audit-pages")
    seen: list[int] = []
    more, query = True, "limit=3"
    while more and len(seen) < 9:
        page = owner.get("GET", f"/audit?{query}")
        assert len(page["data"]) <= 3
        seen += [row["seq"] for row in page["data"]]
        more, query = page["has_more"], f"limit=3&before={seen[-1]}"
    assert seen == list(range(seen[0], seen[0] - len(seen), -1))
    for before in ("x", "0", str(2**63)):
        assert owner.ask("GET", f"/audit?before={before}").status_code == 400


def test_what_is_refused_leaves_no_row(owner: AdminClient) -> None:
    """The change and its row are one transaction."""
    newest = owner.get("GET", "/audit?limit=1")["data"]
    assert owner.ask("POST", "/keys", {"role": "service", "scopes": ["admin"]}).status_code == 400
    assert owner.ask("POST", "/keys/nobody/revoke").status_code == 404
    assert owner.get("GET", "/audit?limit=1")["data"] == newest


def test_rows_stay(governed: ServerProcess, owner: AdminClient) -> None:
    """The file itself refuses to change or drop them."""
    owner.make(tenant="audit-stays")
    with closing(open_file(governed.data_dir)) as file:
        for statement in (
            "UPDATE audit SET actor = 'nobody'",
            "DELETE FROM audit",
            "INSERT OR REPLACE INTO audit SELECT seq, at, 'nobody', via, act, tenant, target, details FROM audit",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="audit rows stay"):
                file.execute(statement)
