"""The ledger's file from outside: checked, exported, copied, brought back, and refused where it is not what it says."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from forebay.stores.schema import UNRELEASED, VERSION
from forebay.stores.sqlite import FILE_NAME
from support.ledger import LedgerFile
from support.server import SERVER_ROOT, ServerProcess
from support.wire import eventually

NUM_REQUESTS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server that has answered `NUM_REQUESTS` requests and has stopped in order."""
    server = ServerProcess(tmp_path_factory.mktemp("files") / "log", ["--engine", "scripted"]).start()
    ask(server, NUM_REQUESTS)
    assert server.stop() == 0
    return server.data_dir


def ask(server: ServerProcess, num_requests: int) -> None:
    for number in range(num_requests):
        body = {"messages": [{"role": "user", "content": f"{number}"}], "max_tokens": 5, "user": "=cmd()"}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code == 200


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT), "FOREBAY_DATA_DIR": str(folder)}
    line = [sys.executable, "-m", "forebay", "ledger", *words]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The same files, to be spoiled."""
    target = tmp_path / "copy"
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_ledger_is_whole_after_an_orderly_stop(folder: Path) -> None:
    """A row a request, and a signed head after the last of them."""
    checked = command(folder, "verify")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout == f"{NUM_REQUESTS} rows, 1 signed heads: whole.\n"


TAMPERING = {
    "a number changed": ("UPDATE entries SET completion_tokens = 1 WHERE seq = 4", "Row 4 is not what was written"),
    "a tenant changed": ("UPDATE entries SET tenant = 'other' WHERE seq = 3", "Row 3 is not what was written"),
    "a row dropped": ("DELETE FROM entries WHERE seq = 5", "Row 5 is missing"),
    "the first row dropped": ("DELETE FROM entries WHERE seq = 1", "Rows up to 1 are missing"),
    "the last rows dropped": ("DELETE FROM entries WHERE seq > 4", "Rows 5 to 6 are missing"),
    "all rows dropped": ("DELETE FROM entries", "Rows 1 to 6 are missing"),
    "a total changed": ("UPDATE daily_totals SET num_tokens = num_tokens + 1", "is not the sum of its rows"),
    "a total dropped": ("DELETE FROM daily_totals", "is not the sum of its rows"),
    "a head forged": ("UPDATE heads SET hash = zeroblob(32)", "is not signed"),
    "opened again": (
        "INSERT INTO open_requests SELECT request_id, '[]', 0 FROM entries LIMIT 1",
        "is open and has a settlement",
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found(copy: Path, what: str) -> None:
    """Each names the row, and the exit code is 1."""
    statement, fault = TAMPERING[what]
    with closing(sqlite3.connect(copy / FILE_NAME)) as connection, connection:
        connection.execute(statement)
    checked = command(copy, "verify")
    assert checked.returncode == 1
    assert fault in checked.stdout
    assert "NOT whole" in checked.stdout


def test_an_export_can_be_checked_by_others(folder: Path, tmp_path: Path) -> None:
    """Without the data folder; one digit changed, and it is found."""
    export = tmp_path / "export.jsonl"
    export.write_text(command(folder, "export").stdout, encoding="utf-8")
    elsewhere = tmp_path / "empty"
    checked = command(elsewhere, "verify", str(export))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    lines = export.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[1])
    row["row"]["cost"] += 1
    lines[1] = json.dumps(row)
    export.write_text("\n".join(lines), encoding="utf-8")
    checked = command(elsewhere, "verify", str(export))
    assert checked.returncode == 1
    assert "Row 2 is not what was written" in checked.stdout
    assert not elsewhere.exists()


def test_a_table_for_spreadsheets_runs_nothing(folder: Path) -> None:
    """A user's name that looks like a formula is text."""
    lines = command(folder, "export", "--format", "csv").stdout.splitlines()
    assert len(lines) == 1 + NUM_REQUESTS
    assert all(",'=cmd()," in line for line in lines[1:])


def test_sums_by_what_is_asked_for(folder: Path) -> None:
    """As a table and as JSON; a day without requests has none."""
    (sums,) = json.loads(command(folder, "report", "--by", "user_id,model", "--json").stdout)
    assert (sums["user_id"], sums["model"], sums["requests"]) == ("=cmd()", "scripted", NUM_REQUESTS)
    assert sums["completion_tokens"] == 5 * NUM_REQUESTS
    assert "completion_tokens" in command(folder, "report").stdout.splitlines()[0]
    assert "Nothing was settled" in command(folder, "report", "--until", "2020-01-01").stdout
    refused = command(folder, "report", "--by", "moon")
    assert refused.returncode == 2
    assert "'moon'" in refused.stderr


def test_a_backup_is_taken_while_requests_are_served_and_brought_back(
    make_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """What came after it is gone then, what came before is whole; a running server's file is not replaced."""
    server = make_server()
    ask(server, 3)
    eventually(lambda: len(LedgerFile(server.data_dir).rows("settle")) == 3)
    saved = tmp_path / "saved"
    assert command(server.data_dir, "backup", str(saved)).returncode == 0
    assert saved.stat().st_mode & 0o777 == 0o600
    again = command(server.data_dir, "backup", str(saved))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    ask(server, 2)
    refused = command(server.data_dir, "restore", str(saved))
    assert refused.returncode == 2
    assert "Another server" in refused.stderr
    server.stop()
    assert command(server.data_dir, "restore", str(saved)).returncode == 0
    server.start()
    ledger = LedgerFile(server.data_dir)
    assert len(ledger.rows("settle")) == 3
    ask(server, 1)
    eventually(lambda: len(ledger.rows("settle")) == 4)
    assert ledger.faults() == []


def test_what_is_no_backup_is_not_brought_back(copy: Path, tmp_path: Path) -> None:
    """A damaged file and one of something else; the ledger stays as it was."""
    (tmp_path / "text").write_text("not a database", encoding="utf-8")
    refused = command(copy, "restore", str(tmp_path / "text"))
    assert refused.returncode == 2
    assert "is not a backup" in refused.stderr
    assert command(copy, "verify").returncode == 0


def test_one_server_a_folder(make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """The second one is told which process has it, and the first one goes on."""
    first = make_server(FOREBAY_DATA_DIR=str(tmp_path / "shared"))
    second = make_server(FOREBAY_DATA_DIR=str(tmp_path / "shared"), ready_timeout_s=None)
    assert second.wait(20) == 2
    assert first.process is not None
    assert f"process {first.process.pid}" in second.log
    assert "FOREBAY_DATA_DIR" in second.log
    ask(first, 1)


def test_a_newer_file_is_left_alone(copy: Path, make_server: Callable[..., ServerProcess]) -> None:
    """An older Forebay does not touch what it does not know."""
    with closing(sqlite3.connect(copy / FILE_NAME)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    server = make_server(FOREBAY_DATA_DIR=str(copy), ready_timeout_s=None)
    assert server.wait(20) == 2
    assert f"version {VERSION + 1}" in server.log
    assert "newer Forebay" in server.log


def test_a_file_from_before_the_first_release_is_left_alone(
    copy: Path, make_server: Callable[..., ServerProcess]
) -> None:
    """Its rows would be read wrongly."""
    with closing(sqlite3.connect(copy / FILE_NAME)) as connection:
        connection.execute(f"PRAGMA user_version = {UNRELEASED}")
    server = make_server(FOREBAY_DATA_DIR=str(copy), ready_timeout_s=None)
    assert server.wait(20) == 2
    assert "before the first release" in server.log


PRICE_FAULTS = {
    "no file": (None, "cannot be read"),
    "not JSON": ("prices", "is not valid"),
    "a price below 0": ('{"version": "1", "models": {"*": {"prompt": -1, "completion": 1}}}', "models.*.prompt"),
    "a fraction": ('{"version": "1", "models": {"*": {"prompt": 1, "completion": 0.5}}}', "models.*.completion"),
    "an unknown kind": ('{"version": "1", "models": {"*": {"prompt": 1, "completion": 1, "cahced": 1}}}', "cahced"),
}


@pytest.mark.parametrize("what", PRICE_FAULTS)
def test_a_price_table_that_is_wrong_ends_the_start(
    make_server: Callable[..., ServerProcess], tmp_path: Path, what: str
) -> None:
    """The sentence names the field."""
    text, fault = PRICE_FAULTS[what]
    path = tmp_path / "prices.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    server = make_server(FOREBAY_PRICES_FILE=str(path), ready_timeout_s=None)
    assert server.wait(20) == 2
    assert fault in server.log


def test_a_version_of_prices_means_one_table_for_ever(
    make_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Rows name the version they were priced by."""
    path = tmp_path / "prices.json"
    for price, exit_code in ((1, 0), (2, 2)):
        table = {"version": "v", "models": {"*": {"prompt": price, "completion": 1}}}
        path.write_text(json.dumps(table), encoding="utf-8")
        server = make_server(
            FOREBAY_PRICES_FILE=str(path), FOREBAY_DATA_DIR=str(tmp_path / "data"), ready_timeout_s=None
        )
        if exit_code:
            assert server.wait(20) == exit_code
            assert "a version of its own" in server.log
        else:
            server.wait_ready(20)
            assert server.stop() == exit_code
