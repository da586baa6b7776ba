"""/admin/usage/reconcile: the ledger beside the engine's own counters, for every way in which requests end."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import httpx
import pytest

from forebay.stores.sqlite import open_file
from support.administrator import OWNER, AdminClient
from support.leaving import leave_after
from support.ledger import LedgerFile
from support.server import ServerProcess, free_port, journalled_server
from support.wire import connect, eventually, finish, post, read_until
from support.witness import Witness

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
KEY_LINE = f"Authorization: Bearer {OWNER}"
LONG = "Words of a prompt that is asked again, long enough for several blocks of the prefix cache. " * 2
NO_DRIFT = {"prompt": 0, "generated": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With an owner's key, a port for administration that outlives a restart, and an engine that may die once."""
    env = {
        "FOREBAY_API_KEYS": OWNER,
        "FOREBAY_ADMIN_PORT": str(free_port()),
        "FOREBAY_ENGINE_RESTARTS": "1",
    }
    with journalled_server(tmp_path_factory.mktemp("reconciled"), **env) as running:
        yield running


def reconcile(server: ServerProcess) -> dict[str, Any]:
    with AdminClient(server, OWNER) as owner:
        found: dict[str, Any] = owner.get("GET", "/usage/reconcile")
    return found


def ask(server: ServerProcess, path: str = CHAT, *, key: str | None = None, **fields: Any) -> httpx.Response:
    """`key`: the Idempotency-Key."""
    prompt = {} if path == COMPLETIONS else {"messages": [{"role": "user", "content": LONG}]}
    headers = {"authorization": f"Bearer {OWNER}"} | ({} if key is None else {"idempotency-key": key})
    return httpx.post(server.url + path, json={**prompt, "max_tokens": 20, **fields}, headers=headers, timeout=30)


def rows(server: ServerProcess, kind: str) -> dict[str, int]:
    """What the file itself says."""
    (found,) = LedgerFile(server.data_dir).query(
        "SELECT count(*) AS num_rows, sum(prompt_tokens) AS prompt_tokens, sum(cached_tokens) AS cached_tokens, "
        "sum(completion_tokens) AS completion_tokens FROM entries WHERE kind = ? AND NOT recovered",
        kind,
    )
    return found


def drift_metric(server: ServerProcess) -> set[float]:
    text = httpx.get(f"{server.url}/metrics").text
    return {float(value) for value in re.findall(r"^forebay_ledger_drift_tokens{.*} (\S+)$", text, re.MULTILINE)}


def test_orderly_requests_leave_no_drift(server: ServerProcess) -> None:
    """Prompts that the cache holds, several choices, several prompts, streams, stop strings, the shortest answers, and
    answers that are given twice and were generated once."""
    for _ in range(2):
        for stream in (False, True):
            assert ask(server, stream=stream).status_code == 200
            assert ask(server, stream=stream, temperature=0, n=3).status_code == 200
            assert ask(server, stream=stream, stop=["e"], seed=3).status_code == 200
            assert ask(server, stream=stream, key=f"twice-{stream}").status_code == 200
        assert ask(server, COMPLETIONS, prompt=LONG, max_tokens=1).status_code == 200
        assert ask(server, COMPLETIONS, prompt="short", n=4).status_code == 200
        assert ask(server, COMPLETIONS, prompt=[LONG, "short"], n=2).status_code == 200
    found = reconcile(server)
    assert found["drift"] == NO_DRIFT
    assert drift_metric(server) == {0.0}
    assert found["billed"] == rows(server, "settle")
    assert found["billed"]["num_rows"] == 2 * 9 + 2
    assert found["billed"]["cached_tokens"] > 0
    assert found["uncharged"]["num_rows"] == found["num_in_flight"] == found["left_unread"] == 0
    engine, billed = found["engine"], found["billed"]
    assert engine["generated_tokens"] == billed["completion_tokens"] > 0
    # Later choices read the prompt's last block again; the client pays for the prompt once.
    assert engine["prompt_tokens"] == billed["prompt_tokens"] - billed["cached_tokens"] + found["read_again"]
    assert found["read_again"] > 0


def test_departures_and_failures_leave_no_drift(server: ServerProcess) -> None:
    """Clients that leave before the prompt is read, and later; answers that fail, and are charged in part or not."""
    with closing(Witness(server)) as witness:
        for num_tokens, way in ((0, "FIN"), (0, "RST"), (1, "RST"), (25, "FIN")):
            leave_after(server, witness, num_tokens, way, KEY_LINE)
    before = reconcile(server)
    assert before["drift"] == NO_DRIFT
    assert before["left_unread"] > 0
    assert ask(server, metadata={"forebay_fail": "raise@7"}).status_code == 500
    ask(server, stream=True, metadata={"forebay_fail": "raise@9", "forebay_inter_token_ms": "1"})
    found = reconcile(server)
    assert found["drift"] == NO_DRIFT
    assert found["uncharged"] == rows(server, "uncharged")
    assert found["uncharged"]["completion_tokens"] >= 7
    assert found["engine"]["generated_tokens"] - before["engine"]["generated_tokens"] == 7 + 9


def test_what_is_in_flight_stands_apart(server: ServerProcess) -> None:
    """Streams that go on are no drift, whatever they have generated, waited for by their clients or not."""
    body = {
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": True,
        "metadata": {"forebay_inter_token_ms": "2"},
    }
    with ExitStack() as opened:
        socks = [opened.enter_context(connect(server.port)) for _ in range(8)]
        for sock in socks:
            sock.sendall(post(CHAT, body, KEY_LINE))
        for sock in socks:
            read_until(sock, b"data: ", count=12)
        for _ in range(5):
            found = reconcile(server)
            assert found["drift"] == NO_DRIFT
            assert found["num_in_flight"] == 8
            assert found["in_flight"]["generated_tokens"] >= 8 * 10
            assert found["in_flight"]["prompt_tokens"] > 0
        assert "forebay_ledger_open_reservations 8.0" in httpx.get(f"{server.url}/metrics").text
        for sock in socks:
            finish(sock)
    found = eventually(lambda: found if (found := reconcile(server))["num_in_flight"] == 0 else None)
    assert found["drift"] == NO_DRIFT
    assert found["in_flight"] == {"prompt_tokens": 0, "generated_tokens": 0, "untold_prompt_tokens": 0}


def test_uncharged_tokens_are_told(server: ServerProcess) -> None:
    """In the request's line and in the statistics, where there are any."""
    with AdminClient(server, OWNER) as owner:
        num_before = httpx.get(f"{server.url}/stats", headers=owner.headers).json().get("uncharged_tokens", 0)
        answer = ask(server, metadata={"forebay_fail": "raise@5"})
        with closing(Witness(server)) as witness:
            line = witness.line(answer.headers["x-request-id"])
            assert line["uncharged_tokens"] > 5
            told = httpx.get(f"{server.url}/stats", headers=owner.headers).json()["uncharged_tokens"]
            assert told - num_before == line["uncharged_tokens"]
            answer = ask(server)
            assert "uncharged_tokens" not in witness.line(answer.headers["x-request-id"])


def test_it_is_for_owners(server: ServerProcess) -> None:
    """The figures are of all tenants together."""
    with AdminClient(server, OWNER) as owner:
        made = owner.make(tenant="red", role="admin")
    with AdminClient(server, made.key) as admin:
        assert admin.ask("GET", "/usage/reconcile").status_code == 403


def test_the_counters_of_engines_that_died_stay(server: ServerProcess) -> None:
    """The new engine counts from zero; what the dead one had generated is in the ledger, charged or not."""
    before = reconcile(server)
    assert ask(server, metadata={"forebay_fail": "die@4"}).status_code == 503
    eventually(lambda: httpx.get(f"{server.url}/ready").status_code == 200, timeout_s=20)
    assert ask(server, max_tokens=6, ignore_eos=True).status_code == 200
    found = reconcile(server)
    assert found["drift"] == NO_DRIFT
    assert found["engine"]["generated_tokens"] - before["engine"]["generated_tokens"] == 4 + 6


def test_after_a_crash_the_recovered_rows_stand_apart(server: ServerProcess) -> None:
    """Another process's engine generated those tokens: they are in the ledger and no drift of this one."""
    body = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with connect(server.port) as sock:
        sock.sendall(post(CHAT, body | {"metadata": {"forebay_inter_token_ms": "2"}}, KEY_LINE))
        read_until(sock, b"data: ", count=40)
        server.signal(signal.SIGKILL)
        server.wait(10)
    server.start()
    assert ask(server).status_code == 200
    found = reconcile(server)
    assert found["drift"] == NO_DRIFT
    assert found["recovered"]["num_rows"] == 1
    assert found["recovered"]["completion_tokens"] > 10
    assert found["billed"]["num_rows"] == 1
    assert "forebay_ledger_recovered_requests 1.0" in httpx.get(f"{server.url}/metrics").text


def test_a_row_that_vanished_is_drift(server: ServerProcess) -> None:
    """The engine generated tokens that the ledger does not have: the metric says how many."""
    answer = ask(server, max_tokens=9, ignore_eos=True)
    row = LedgerFile(server.data_dir).settled(answer.json()["id"].partition("-")[2])
    with closing(open_file(server.data_dir)) as connection:
        connection.execute("DELETE FROM entries WHERE seq = ?", (row["seq"],))
    found = reconcile(server)
    assert found["drift"] == {"prompt": row["prompt_tokens"] - row["cached_tokens"], "generated": 9}
    assert 9.0 in drift_metric(server)
