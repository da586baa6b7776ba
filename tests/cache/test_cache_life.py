"""What the cache outlives: restarts, kill -9, a broken file, forged entries, a Redis that goes."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from forebay.cache.stores.sqlite_rows import FILE_NAME
from support.administrator import OWNER
from support.cached import TEXT, Asker, cached_server, text_of
from support.redis import RedisProcess, redis_8
from support.server import ServerProcess
from support.wire import connect, eventually, post, read_until
from support.witness import Witness

NO_DRIFT = {"prompt": 0, "generated": 0}


def num_stored(server: ServerProcess) -> int:
    with closing(sqlite3.connect(server.data_dir / FILE_NAME)) as file:
        (num,) = file.execute("SELECT count(*) FROM entries").fetchone()
    return int(num)


def change(folder: Path, sql: str) -> None:
    with closing(sqlite3.connect(folder / "data" / FILE_NAME)) as file, file:
        file.execute(sql)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server leaves that was asked three questions."""
    folder = tmp_path_factory.mktemp("stored")
    with cached_server(folder) as server, closing(Asker(server)) as asker:
        for question in ("One?", "Two?", "Three?"):
            asker.ask(question)
    (folder / "journal").unlink()
    return folder


@pytest.fixture
def left(stored: Path, tmp_path: Path) -> Path:
    """The same for a test of its own."""
    return shutil.copytree(stored, tmp_path / "left")


def test_entries_outlive_the_process(tmp_path: Path) -> None:
    """Killed or stopped in order: what was stored a moment before is there; a new epoch leaves it unread."""
    with cached_server(tmp_path) as first, closing(Asker(first)) as asker:
        assert asker.outcome("One?") == "miss"
        eventually(lambda: num_stored(first) == 1)
        first.signal(signal.SIGKILL)
        first.wait(5)
    with cached_server(tmp_path) as second, closing(Asker(second)) as asker:
        answer = asker.ask("One?")
        assert (answer.headers["x-cache"], text_of(answer)) == ("hit", TEXT)
        assert asker.outcome("Two?") == "miss"
        assert asker.drift() == NO_DRIFT
    assert num_stored(second) == 2
    with cached_server(tmp_path, FOREBAY_CACHE_EPOCH="1") as third, closing(Asker(third)) as asker:
        assert asker.outcome("Two?") == "miss"


def test_what_is_off_answers_nothing(tmp_path: Path) -> None:
    """Without the setting no header says anything of a cache, and no file of it is made; who wants a stored answer or
    none is told that there is none."""
    with cached_server(tmp_path, FOREBAY_CACHE="off") as server, closing(Asker(server)) as asker:
        answers = [asker.ask("One?"), asker.ask("One?", headers={"cache-control": "max-age=60"})]
        assert not any(name.startswith("x-cache") for answer in answers for name in answer.headers)
        assert asker.ask("One?", headers={"cache-control": "only-if-cached"}).status_code == 504
        assert not (server.data_dir / FILE_NAME).exists()


def test_an_entry_that_is_not_ours_is_passed_over(left: Path) -> None:
    """One that was changed, and one that was put in another's place: generated anew, counted, replaced."""
    change(left, "UPDATE entries SET body = (SELECT body FROM entries WHERE number = 3) WHERE number = 1")
    change(left, "UPDATE entries SET expires_at = expires_at + 1 WHERE number = 2")
    with cached_server(left) as server, closing(Asker(server)) as asker, closing(Witness(server)) as witness:
        outcomes = [asker.outcome(question) for question in ("One?", "Two?", "Three?")]
        assert outcomes == ["miss", "miss", "hit"]
        assert value_of(asker, "forebay_cache_seals_refused_total") == 2
        assert [asker.outcome(question) for question in ("One?", "Two?")] == ["hit", "hit"]
        assert len(witness.seen()) == 2


def value_of(asker: Asker, name: str) -> float:
    text = httpx.get(f"{asker.server.url}/metrics", headers={"authorization": f"Bearer {OWNER}"}).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.partition(" ")[2])


def test_a_broken_file_is_set_aside(left: Path) -> None:
    """Requests go on, and a new file is begun."""
    (left / "data" / FILE_NAME).write_bytes(b"This was a database once. " * 500)
    with cached_server(left) as server, closing(Asker(server)) as asker:
        assert asker.outcome("One?") == "miss"
        assert asker.outcome("One?") == "hit"
        eventually(lambda: "cache_file_set_aside" in server.written)
        assert asker.outcome("Two?") == "miss"
        eventually(lambda: (server.data_dir / FILE_NAME).exists() and num_stored(server) >= 1)


def test_after_kill_9_those_who_read_along_pay_as_such(tmp_path: Path) -> None:
    """The sweep settles each at its own checkpoint: who began it at the price of generating, the other at a hit's."""
    body = {
        "messages": [{"role": "user", "content": "go"}],
        "temperature": 0,
        "max_tokens": 4000,
        "ignore_eos": True,
        "stream": True,
        "metadata": {"forebay_inter_token_ms": "3"},
    }
    request = post("/v1/chat/completions", body, f"Authorization: Bearer {OWNER}")
    with cached_server(tmp_path) as server, connect(server.port) as one, connect(server.port) as other:
        one.sendall(request)
        read_until(one, b'"content":"', count=3)
        other.sendall(request)
        for sock in (one, other):
            read_until(sock, b'"content":"', count=60)
        server.signal(signal.SIGKILL)
        server.wait(5)
    with cached_server(tmp_path) as server, closing(Asker(server)) as asker:
        paid, joined = asker.ledger.rows("settle")
        assert [row["cache_kind"] for row in (paid, joined)] == [None, "joined"]
        assert [row["outcome"] for row in (paid, joined)] == ["crashed", "crashed"]
        assert paid["cost"] == paid["prompt_tokens"] + 2 * paid["completion_tokens"]
        assert joined["cost"] == -(-(joined["prompt_tokens"] + joined["completion_tokens"]) // 2)
        assert min(paid["completion_tokens"], joined["completion_tokens"]) > 40
        assert asker.drift() == NO_DRIFT
        assert not asker.ledger.faults()


def test_after_kill_9_a_hit_is_a_hit(left: Path) -> None:
    """Its tokens are durable with its reservation, and cost what a hit costs."""
    with cached_server(left, FOREBAY_FAILPOINT="reserved:1") as server, closing(Asker(server)) as asker:
        with pytest.raises(httpx.TransportError):
            asker.ask("One?")
        server.wait(5)
    with cached_server(left) as server, closing(Asker(server)) as asker:
        paid, *_, hit = asker.ledger.rows("settle")
        assert (hit["outcome"], hit["cache_kind"], hit["recovered"]) == ("crashed", "exact", 1)
        assert hit["completion_tokens"] == paid["completion_tokens"]
        assert hit["cost"] == -(-(hit["prompt_tokens"] + hit["completion_tokens"]) // 2)
        assert not asker.ledger.faults()


def test_servers_share_answers_through_redis(tmp_path: Path, redis: RedisProcess, prefix: str) -> None:
    """Those of one secret."""
    env = {
        "FOREBAY_CACHE_REDIS_URL": redis.url,
        "FOREBAY_REDIS_PREFIX": prefix,
        "FOREBAY_SECRET": "a secret that both servers have, long enough",
    }
    folders = [tmp_path / name for name in ("one", "two", "strange")]
    for folder in folders:
        folder.mkdir()
    with (
        cached_server(folders[0], **env) as first,
        cached_server(folders[1], **env) as second,
        cached_server(folders[2], **env | {"FOREBAY_SECRET": "another secret, as long as the first"}) as strange,
        closing(Asker(first)) as one,
        closing(Asker(second)) as two,
        closing(Asker(strange)) as three,
    ):
        original = one.ask("Shared?")
        eventually(lambda: redis.client().keys(f"{prefix}*"))
        hit = eventually(lambda: (answer := two.ask("Shared?")).headers["x-cache"] == "hit" and answer)
        assert text_of(hit) == text_of(original)
        assert hit.headers["x-cache-id"] == original.headers["x-cache-id"]
        assert two.row(hit)["cache_kind"] == "exact"
        assert three.outcome("Shared?") == "miss"
        assert not (first.data_dir / FILE_NAME).exists()


def test_without_its_redis_a_server_goes_on(tmp_path: Path) -> None:
    """From memory, and by generating; once Redis is back it is given what it lacks."""
    own = redis_8(tmp_path / "redis").start()
    env = {"FOREBAY_CACHE_REDIS_URL": own.url}
    try:
        with cached_server(tmp_path, **env) as server, closing(Asker(server)) as asker:
            assert asker.outcome("Before?") == "miss"
            own.kill()
            for number in range(8):
                assert asker.outcome(f"Meanwhile {number}?") == "miss"
            assert asker.outcome("Before?") == "hit"
            assert asker.outcome("Meanwhile 3?") == "hit"
            assert asker.drift() == NO_DRIFT
            own.start()
            eventually(lambda: int(str(own.command("DBSIZE"))) > 0, timeout_s=10)
    finally:
        own.stop()
