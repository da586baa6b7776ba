"""`forebay keys` and `forebay tenants`, beside a running server and without one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from forebay.cli import main
from support.command import forebay
from support.ledger import LedgerFile
from support.server import ServerProcess
from support.wire import eventually


def status(server: ServerProcess, key: str | None = None) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/v1/models", headers=headers).status_code


def run(data_dir: Path, *args: str) -> str:
    done = forebay(*args, data_dir=data_dir)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_server_notices_what_the_command_does(make_server: Callable[..., ServerProcess]) -> None:
    """Open without keys; closed from the first key on, which works; rotated with overlap; revoked within a second; and
    ending the last key opens nothing, not even for the next server."""
    server = make_server("--engine", "scripted")
    assert status(server) == 200
    assert httpx.get(f"{server.admin_url}/admin/keys").status_code == 401  # the admin API asks in any case
    first = run(server.data_dir, "keys", "create", "--tenant", "acme").strip()
    eventually(lambda: status(server) == 401)
    assert status(server, first) == 200
    (listed,) = json.loads(run(server.data_dir, "keys", "list", "--json"))
    second = run(server.data_dir, "keys", "rotate", listed["id"], "--grace", "1h").strip()
    eventually(lambda: status(server, second) == 200)
    assert status(server, first) == 200
    run(server.data_dir, "keys", "revoke", listed["id"])
    revoked = time.monotonic()
    eventually(lambda: status(server, second) == 401, timeout_s=1.0)
    assert time.monotonic() - revoked <= 1.0
    assert status(server, first) == 401
    server.stop()
    server.start(ready_timeout_s=60)
    assert status(server) == 401


def test_the_key_alone_is_printed(tmp_path: Path) -> None:
    """`KEY=$(forebay keys create)` catches it; what is said of it is on standard error, without it. The data file holds
    none of it."""
    made = forebay("keys", "create", "--tenant", "acme", "--name", "web", data_dir=tmp_path)
    key = made.stdout.removesuffix("\n")
    assert key.startswith("fb-")
    assert "\n" not in key
    assert "acme" in made.stderr
    secret = key.split("-")[2]
    assert secret not in made.stderr
    for command in (["keys", "list"], ["keys", "list", "--json"], ["tenants", "list"]):
        assert secret not in run(tmp_path, *command)
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert secret.encode() not in held
    assert key.split("-")[1].encode() in held


def test_commands_may_come_at_once(tmp_path: Path) -> None:
    """Also to a folder that is not there yet: whoever comes second finds the file made."""
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: run(tmp_path / "new", "keys", "create"), range(3)))
    assert len(set(made)) == 3
    assert len(LedgerFile(tmp_path / "new").query("SELECT id FROM keys")) == 3


def test_every_field_has_a_flag(tmp_path: Path) -> None:
    """What is asked for is what is kept, as the admin API shows it."""
    flags = (
        "--tenant acme --name nightly --role service --scopes chat,models --models alpha --rpm 10 --tpm 2000 "
        "--concurrency 3 --queue-share 0.5 --budget 25.50/month --budget 1000000tokens/day/soft --priority batch "
        "--cache off --cache-any-temperature --no-strict --gateway --expires 90d --json"
    )
    made = json.loads(run(tmp_path, "keys", "create", *flags.split()))
    expected: dict[str, Any] = {
        "tenant": "acme", "name": "nightly", "role": "service", "scopes": ["chat", "models"], "models": ["alpha"],
        "priority": "batch", "cache_policy": "off", "cache_any_temperature": True, "strict": False,
        "gateway": True, "status": "active",
        "limits": {
            "requests_per_minute": 10, "tokens_per_minute": 2000, "max_concurrency": 3, "queue_share": 0.5,
            "budgets": [
                {"amount": 25_500_000, "unit": "money", "window": "month", "hard": True},
                {"amount": 1_000_000, "unit": "tokens", "window": "day", "hard": False},
            ],
        },
    }  # fmt: skip
    assert made | expected == made
    assert abs(made["expires_at"] - time.time() - 90 * 86_400) < 60
    shown = run(tmp_path, "keys", "list", "--tenant", "acme").splitlines()[1]
    for part in ("nightly", "service", "active", made["key"][-4:], "rpm 10", "25.5/month", "1000000tokens/day/soft"):
        assert part in shown
    assert len(run(tmp_path, "keys", "list", "--tenant", "other").splitlines()) == 1


def test_tenants_are_set_as_a_whole(tmp_path: Path) -> None:
    """What is left out is no limit any more."""
    run(tmp_path, "tenants", "set", "acme", "--rpm", "5", "--budget", "1/total")
    run(tmp_path, "tenants", "set", "acme", "--tpm", "7")
    (tenant,) = json.loads(run(tmp_path, "tenants", "list", "--json"))
    assert tenant["limits"]["tokens_per_minute"] == 7
    assert (tenant["limits"]["requests_per_minute"], tenant["limits"]["budgets"]) == (None, [])
    assert "tpm 7" in run(tmp_path, "tenants", "list")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("keys", "create", "--tenant", "a b"), "tenant"),
        (("keys", "create", "--role", "root"), "--role"),
        (("keys", "create", "--role", "service", "--scopes", "admin"), "admin"),
        (("keys", "create", "--scopes", "everything"), "scopes"),
        (("keys", "create", "--budget", "5/year"), "month"),
        (("keys", "create", "--budget", "1.5tokens/day"), "decimals"),
        (("keys", "create", "--budget", "much/day"), "amount"),
        (("keys", "create", "--budget", "Infinity/month"), "amount"),
        (("keys", "create", "--budget", "NaNtokens/day"), "amount"),
        (("keys", "create", "--budget", "1e999999/total"), "amount"),
        (("keys", "create", "--rpm", "0"), "limits"),
        (("keys", "create", "--expires", "tomorrow"), "--expires"),
        (("keys", "rotate", "nobody"), "nobody"),
        (("keys", "rotate", "nobody", "--grace", "99d"), "--grace"),
        (("keys", "revoke", "nobody"), "nobody"),
        (("tenants", "set", "a/b"), "tenant"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: tuple[str, ...],
    said: str,
) -> None:
    """Exit code 2, and nothing is kept: no key, no row in the audit."""
    monkeypatch.setenv("FOREBAY_DATA_DIR", str(tmp_path))
    try:
        exit_code = main(args)
    except SystemExit as usage:
        exit_code = int(usage.code or 0)
    shown = capsys.readouterr()
    assert (exit_code, shown.out) == (2, "")
    assert said in shown.err
    if any(tmp_path.iterdir()):
        assert LedgerFile(tmp_path).query("SELECT 1 FROM keys UNION ALL SELECT 1 FROM audit") == []
