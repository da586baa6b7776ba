"""The semantic tier with Redis: servers share answers, each with labels of its own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from support.administrator import OWNER, AdminClient
from support.cached import Asker, text_of
from support.redis import RedisProcess, redis_8
from support.semantic import let_serve, semantic_server
from support.wire import eventually

ASKED, REPHRASED = "How do I reset my password?", "hi, how can I reset my password please"
SECRET = "a secret that both servers have, long enough"


def test_servers_share_answers_and_not_labels(tmp_path: Path, redis: RedisProcess, prefix: str) -> None:
    """What one has stored the other finds for a rephrased question, and serves once its own labels allow it."""
    env = {"FOREBAY_CACHE_REDIS_URL": redis.url, "FOREBAY_REDIS_PREFIX": prefix, "FOREBAY_SECRET": SECRET}
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with (
        semantic_server(folders[0], **env) as first,
        semantic_server(folders[1], **env) as second,
        closing(Asker(first)) as one,
        closing(Asker(second)) as two,
        AdminClient(second, OWNER) as owner,
    ):
        original = one.ask(ASKED)
        eventually(lambda: redis.client().keys(f"{prefix}cache:v:*"))
        observed = two.ask("please, how can I reset my password")
        assert observed.headers["x-cache"] == "miss"
        let_serve(owner, "default")
        hit = two.ask(REPHRASED)
        assert (hit.headers["x-cache"], hit.headers["x-cache-tier"]) == ("hit", "semantic")
        assert text_of(hit) == text_of(original)
        one.ask("Where can I park my bicycle?")
        eventually(lambda: two.outcome("Where can I park my bicycle, please?") == "hit")


def test_the_tier_outlives_its_redis(tmp_path: Path) -> None:
    """While it is killed, and after it was flushed, from memory; what was stored before and meanwhile is in Redis again
    with its vectors, where a server that begins with nothing finds it in other words."""
    own = redis_8(tmp_path / "redis").start()
    folders = [tmp_path / name for name in ("one", "newcomer")]
    for folder in folders:
        folder.mkdir()
    env = {"FOREBAY_CACHE_REDIS_URL": own.url, "FOREBAY_SECRET": SECRET}
    try:
        with (
            semantic_server(folders[0], **env) as server,
            closing(Asker(server)) as asker,
            AdminClient(server, OWNER) as owner,
        ):
            let_serve(owner, "default")
            assert [asker.outcome(text) for text in (ASKED, REPHRASED)] == ["miss", "hit"]
            own.kill()
            for number in range(8):
                assert asker.outcome(f"What is the fare to zone {number}?") == "miss"
            assert asker.outcome("please, how can I reset my password") == "hit"
            assert asker.outcome("hi, what is the fare to zone 3") == "hit"
            assert asker.outcome("hi, what is the fare to zone 9") == "miss"
            own.start()
            eventually(lambda: num_vectors(own) == 10, timeout_s=10)
            own.command("FLUSHALL")
            assert asker.outcome("please, what is the fare to zone 5") == "hit"
            eventually(lambda: num_vectors(own) == 10, timeout_s=10)
        with (
            semantic_server(folders[1], **env) as server,
            closing(Asker(server)) as asker,
            AdminClient(server, OWNER) as owner,
        ):
            let_serve(owner, "default")
            assert asker.outcome("please, how can I reset my password") == "hit"
            assert asker.outcome("hello, what is the fare to zone 7") == "hit"
            assert asker.outcome("hello, what is the fare to zone 77") == "miss"
    finally:
        own.stop()


def num_vectors(redis: RedisProcess) -> int:
    client = redis.client()
    return sum(client.execute_command("VCARD", name) for name in client.keys("*cache:v:*"))
