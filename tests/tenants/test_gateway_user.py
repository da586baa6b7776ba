"""For whom a trusted gateway asks: a header that counts where the setting names it and the key is a gateway's."""

from __future__ import annotations

import httpx
import pytest

from support.administrator import AdminClient
from support.door import BODIES, CHAT, COMPLETIONS, GENERATE
from support.ledger import LedgerFile
from support.server import ServerProcess


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, GENERATE])
def test_the_ledger_knows_whom_a_gateway_asks_for(
    governed: ServerProcess, owner: AdminClient, service: httpx.Client, path: str
) -> None:
    """The header comes before the body's `user`, which its user may have written; from other keys it is not read."""
    gateway, other = owner.make(tenant="acme", gateway=True), owner.make(tenant="acme")
    ledger = LedgerFile(governed.data_dir)
    for key, header, field, expected in (
        (gateway, "ann", None, "ann"),
        (gateway, "ann", "bob", "ann"),
        (gateway, None, "bob", "bob"),
        (gateway, None, None, None),
        (other, "ann", None, None),
    ):
        if field is not None and path == GENERATE:
            continue
        headers = key.headers | ({} if header is None else {"X-User-ID": header})
        body = BODIES[path] | ({} if field is None else {"user": field})
        answer = service.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        assert ledger.settled(answer.headers["x-request-id"])["user_id"] == expected


def test_a_user_that_cannot_be_kept_is_refused(owner: AdminClient, service: httpx.Client) -> None:
    """400 with the header's name, and nothing is generated for nobody."""
    gateway = owner.make(gateway=True)
    for value in (b"", b"x" * 257, b"a\tb", "\u0080".encode("latin-1")):
        headers = {b"x-user-id": value, **{name.encode(): text.encode() for name, text in gateway.headers.items()}}
        answer = service.post(CHAT, json=BODIES[CHAT], headers=headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-User-ID"), value
    twice = [*gateway.headers.items(), ("x-user-id", "ann"), ("x-user-id", "bob")]
    answer = service.post(CHAT, json=BODIES[CHAT], headers=twice)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-User-ID")


def test_without_the_setting_the_header_is_not_read(server: ServerProcess) -> None:
    """Whoever sends it."""
    answer = httpx.post(server.url + CHAT, json=BODIES[CHAT], headers={"x-user-id": "ann"})
    assert LedgerFile(server.data_dir).settled(answer.headers["x-request-id"])["user_id"] is None
