"""A server that cannot read its keys for a while keeps to what it knew."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from structlog.testing import capture_logs

from forebay.settings import Settings
from forebay.stores.sqlite import open_file
from forebay.tenants.administration import create_key
from forebay.tenants.authority import Administrator
from forebay.tenants.directory import Directory
from forebay.tenants.key_watch import KeyWatch
from support.administrator import OWNER


async def test_what_was_read_stays_in_force(tmp_path: Path) -> None:
    """One line when it begins, one when it ends, and no failure for whoever waits for it."""
    directory = Directory(Settings(api_keys=OWNER))
    watch = KeyWatch(tmp_path, directory)
    with capture_logs() as lines:
        for _ in range(3):
            await watch.refresh()
        assert (await directory.authenticate(f"Bearer {OWNER}")).role == "owner"
        with closing(open_file(tmp_path)) as file:
            _, secret = create_key(file, Administrator.at_console("tests"), "acme", {})
        await watch.refresh()
    assert (await directory.authenticate(f"Bearer {secret}")).tenant == "acme"
    assert [line["event"] for line in lines] == ["keys_unreadable", "keys_readable"]
    await watch.close()
