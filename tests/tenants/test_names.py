"""Names that others choose end on operators' terminals, and in their logs: they command neither."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from support.administrator import AdminClient
from support.command import forebay
from support.door import BODIES, CHAT, check_refused
from support.server import ServerProcess

CLEAR_SCREEN = "a\x1b[2Jb"


@pytest.mark.parametrize("name", [CLEAR_SCREEN, "a\nb", "\x9b2J", "a\u202eb", "\x00"])
def test_names_are_printable(owner: AdminClient, name: str) -> None:
    """Of keys and of models: no control characters, of terminals or of the direction of text."""
    check_refused(owner.ask("POST", "/keys", {"name": name}), "name")
    check_refused(owner.ask("POST", "/keys", {"models": ["alpha", name]}), "models[1]")
    assert owner.make(name="Zoë's 🔑")


def test_a_model_may_be_called_anything_printable(server: ServerProcess) -> None:
    """Where `*` is served; the log has the name."""
    for name, status in ((CLEAR_SCREEN, 404), ("gpt-4", 200)):
        assert httpx.post(server.url + CHAT, json=BODIES[CHAT] | {"model": name}).status_code == status


def test_tables_obey_nobody(server: ServerProcess, tmp_path: Path) -> None:
    """The ledger keeps a user as he was called; the report shows it escaped. So do refusals."""
    asked = httpx.post(server.url + CHAT, json=BODIES[CHAT] | {"user": CLEAR_SCREEN})
    assert asked.status_code == 200
    shown = forebay("ledger", "report", "--by", "user_id", data_dir=server.data_dir)
    assert r"a\x1b[2Jb" in shown.stdout
    refused = forebay("keys", "revoke", CLEAR_SCREEN, data_dir=tmp_path)
    assert refused.returncode == 2
    assert "\x1b" not in shown.stdout + refused.stderr
