"""What a tenant's admin may leave on the disk: acts stay in the audit for good."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from forebay.errors import PermissionDenied
from forebay.stores.sqlite import open_file
from forebay.tenants.administration import MAX_LIVE_KEYS, create_key, revoke_key
from forebay.tenants.authority import Administrator
from support.administrator import AdminClient
from support.door import check_refused
from support.server import ServerProcess


def test_acts_of_a_tenants_admins_are_counted(governed: ServerProcess, owner: AdminClient) -> None:
    """Together, whichever key: a fresh one brings no more. Owners and other tenants are not concerned."""
    first, second = (owner.make(tenant="busy", role="admin") for _ in range(2))
    with AdminClient(governed, first.key) as one, AdminClient(governed, second.key) as two:
        num_done = 0
        while one.ask("PATCH", f"/keys/{first.id}", {"name": f"{num_done}"}).status_code == 200:
            num_done += 1
        assert num_done >= 60
        refused = next(answer for _ in range(9) if (answer := two.ask("POST", "/keys", {})).status_code == 429)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(refused.headers["retry-after"]) >= 1
        assert two.ask("GET", "/keys").status_code == 200
    assert owner.make(tenant="busy")
    with AdminClient(governed, owner.make(tenant="quiet", role="admin").key) as other:
        assert other.make(tenant="quiet")


def test_what_changes_nothing_leaves_no_row(owner: AdminClient) -> None:
    """Of a key or a tenant."""
    key = owner.make(tenant="still", name="one")
    owner.get("PUT", "/tenants/still", {"limits": {"requests_per_minute": 5}})
    before = owner.get("GET", "/audit")["data"][0]["seq"], owner.get("GET", f"/keys/{key.id}")
    owner.get("PATCH", f"/keys/{key.id}", {"name": "one"})
    owner.get("PUT", "/tenants/still", {"limits": {"requests_per_minute": 5}})
    assert (owner.get("GET", "/audit")["data"][0]["seq"], owner.get("GET", f"/keys/{key.id}")) == before


def test_names_of_models_are_bounded_together(owner: AdminClient) -> None:
    """Each row of the audit repeats them."""
    assert owner.make(models=[f"{number:0256}" for number in range(16)])
    check_refused(owner.ask("POST", "/keys", {"models": [f"{number:0256}" for number in range(17)]}), "models")


def test_a_tenant_has_a_number_of_keys(tmp_path: Path) -> None:
    """That are not revoked; an owner may make more."""
    console = Administrator.at_console("ann")
    admin = Administrator("somebody", "api", "admin", "acme")
    with closing(open_file(tmp_path)) as file:
        file.execute("BEGIN")
        keys = [create_key(file, console, "acme", {})[0] for _ in range(MAX_LIVE_KEYS)]
        with pytest.raises(PermissionDenied, match="1000 keys"):
            create_key(file, admin, "acme", {"scopes": ("chat",)})
        create_key(file, console, "acme", {})
        for key in keys[:2]:
            revoke_key(file, admin, key.id)
        create_key(file, admin, "acme", {"scopes": ("chat",)})
