"""Settled rows in PostgreSQL: each once, whatever happens to either side, and nobody waits for it."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.ledger import LedgerFile
from support.postgres import PASSWORD, PostgresServer
from support.server import ServerProcess
from support.wire import eventually

CHAT = "/v1/chat/completions"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Make = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        yield server.make().start()
    finally:
        server.destroy()


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    """Of an empty database."""
    return postgres.new_database()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A server that copies its rows to a PostgreSQL: `make(url, **environment)`, not started."""
    made: list[ServerProcess] = []

    def make_one(url: str, **env: str) -> ServerProcess:
        folder = tmp_path / str(len(made))
        made.append(ServerProcess(folder / "log", ["--engine", "scripted"], {"FOREBAY_LEDGER_POSTGRES_URL": url} | env))
        return made[-1]

    yield make_one
    for server in made:
        server.stop()


def ask(server: ServerProcess, num_times: int = 1, **fields: Any) -> None:
    body = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 7, "ignore_eos": True, **fields}
    for _ in range(num_times):
        httpx.post(server.url + CHAT, json=body, timeout=30)


def in_ledger(*servers: ServerProcess) -> list[dict[str, Any]]:
    """Settled and uncharged rows of their files, as PostgreSQL should have them."""
    found = []
    for server in servers:
        ledger = LedgerFile(server.data_dir)
        (replica,) = ledger.query("SELECT value FROM meta WHERE name = 'replica_id'")
        for row in ledger.query("SELECT * FROM entries"):
            for name in ("at", "reserved_at"):
                row[name] = EPOCH + timedelta(milliseconds=row[name])
            row |= {"streamed": bool(row["streamed"]), "recovered": bool(row["recovered"])}
            row |= {"metadata": json.loads(row["metadata"] or "null"), "replica_id": replica["value"]}
            found.append(row)
    return sorted(found, key=lambda row: (row["replica_id"], row["seq"]))


def in_postgres(postgres: PostgresServer, url: str) -> list[dict[str, Any]]:
    if postgres.query("SELECT to_regclass('forebay_ledger') AS there", url=url) == [{"there": None}]:
        return []
    return postgres.query("SELECT * FROM forebay_ledger ORDER BY replica_id, seq, hash", url=url)


def gauge(server: ServerProcess, name: str) -> float:
    found = re.search(rf"^forebay_ledger_sink_{name} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def lines(server: ServerProcess, event: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if f'"event":"{event}"' in line]


def test_every_settled_row_arrives_once_as_it_is(postgres: PostgresServer, url: str, make: Make) -> None:
    """Column by column, within a second or two while the server runs, and all of them when it has stopped; reservations
    stay at home. Another, empty database is filled with all that the ledger has."""
    server = make(url).start()
    ask(server, 2, user="ann", metadata={"team": "red", 'quo"te': "\\u0000"}, stream=True)
    ask(server, metadata={"forebay_fail": "raise@3"})
    eventually(lambda: in_postgres(postgres, url) == in_ledger(server) or None)
    assert len(in_postgres(postgres, url)) == 4
    assert {row["kind"] for row in in_postgres(postgres, url)} == {"settle", "uncharged"}
    assert eventually(lambda: gauge(server, "lag_rows") == 0)
    assert gauge(server, "up") == 1
    ask(server, 3)
    server.stop()
    assert in_postgres(postgres, url) == in_ledger(server)
    other = server.env["FOREBAY_LEDGER_POSTGRES_URL"] = postgres.new_database()
    server.start()
    ask(server, user="a\0b", metadata={"k\0": "v\0"})
    server.stop()
    *rows, last = in_postgres(postgres, other)
    *expected, kept = in_ledger(server)
    assert rows == expected
    assert len(rows) == 7
    # PostgreSQL's texts cannot hold U+0000, which JSON may carry; the ledger keeps it.
    assert (kept["user_id"], kept["metadata"]) == ("a\0b", {"k\0": "v\0"})
    assert (last["user_id"], last["metadata"]) == ("a\ufffdb", {"k\ufffd": "v\ufffd"})


def test_killed_before_it_is_noted_what_arrived(postgres: PostgresServer, url: str, make: Make) -> None:
    """kill -9 between PostgreSQL's commit and the cursor's: the rows are sent again and counted once."""
    server = make(url, FOREBAY_FAILPOINT="sink_applied").start()
    with contextlib.suppress(httpx.TransportError):  # a slow client's first rows may arrive before its last request
        ask(server, 3)
    assert server.wait(10) == -signal.SIGKILL
    assert in_postgres(postgres, url)
    del server.env["FOREBAY_FAILPOINT"]
    server.start()
    ask(server, 2)
    server.stop()
    assert in_postgres(postgres, url) == in_ledger(server)


def test_a_store_that_is_away_delays_nobody(postgres: PostgresServer, url: str, make: Make) -> None:
    """Stopped and started: answers go on, rows wait and arrive, and the log has one line for each change."""
    server = make(url).start()
    eventually(lambda: gauge(server, "up") == 1)
    postgres.stop()
    try:
        began = time.monotonic()
        ask(server, 5)
        assert time.monotonic() - began < 2
        eventually(lambda: gauge(server, "up") == 0)
        assert gauge(server, "lag_rows") >= 5
        assert 'forebay_ledger_sink_last_fault{kind="unreachable"} 1.0' in httpx.get(f"{server.url}/metrics").text
    finally:
        postgres.start()
    eventually(lambda: gauge(server, "up") == 1, timeout_s=20)
    eventually(lambda: gauge(server, "lag_rows") == 0)
    assert in_postgres(postgres, url) == in_ledger(server)
    assert len(lines(server, "ledger_sink_down")) == 1
    assert len(lines(server, "ledger_sink_up")) == 2


def test_a_refused_login_is_told_without_the_password(postgres: PostgresServer, url: str, make: Make) -> None:
    """The service serves; log and metrics say why nothing arrives, and no more than that."""
    wrong = url.replace(PASSWORD, f"{PASSWORD}-wrong")
    server = make(wrong, FOREBAY_LOG_LEVEL="debug").start()
    ask(server)
    eventually(lambda: lines(server, "ledger_sink_down"))
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'forebay_ledger_sink_last_fault{kind="refused"} 1.0' in metrics
    assert gauge(server, "up") == 0
    server.stop()
    (line,) = lines(server, "ledger_sink_down")
    assert line["reason"] == "refused"
    assert PASSWORD not in server.log + metrics


def test_a_newer_table_is_left_alone(postgres: PostgresServer, url: str, make: Make) -> None:
    """Of a later version of ours: this one does not know what it would have to write."""
    postgres.query("CREATE TABLE forebay_ledger_version AS SELECT 99 AS version", url=url)
    server = make(url).start()
    ask(server)
    (line,) = eventually(lambda: lines(server, "ledger_sink_down"))
    assert line["reason"] == "schema"


def test_what_is_no_address_is_refused_at_start(make: Make) -> None:
    """Named by its variable, and not repeated: it may hold a password."""
    server = make(f"postgresql://forebay:{PASSWORD}%zz@host/db").start(ready_timeout_s=None)
    assert server.wait(30) == 2
    assert "FOREBAY_LEDGER_POSTGRES_URL" in server.log
    assert PASSWORD not in server.log


def test_a_fleet_comes_together_in_one_table(postgres: PostgresServer, url: str, make: Make) -> None:
    """Two servers that start at once make the table once; the sums are those of their ledgers."""
    fleet = [make(url).start(ready_timeout_s=None) for _ in range(2)]
    for number, server in enumerate(fleet):
        server.wait_ready(60)
        ask(server, 4, user=f"u{number}")
    for server in fleet:
        server.stop()
    rows = in_postgres(postgres, url)
    assert rows == in_ledger(*fleet)
    assert len({row["replica_id"] for row in rows}) == 2
    (sums,) = postgres.query("SELECT sum(completion_tokens) AS tokens, count(*) AS n FROM forebay_ledger", url=url)
    assert (int(sums["tokens"]), sums["n"]) == (2 * 4 * 7, 8)
