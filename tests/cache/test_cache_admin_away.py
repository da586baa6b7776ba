"""Operators' view of a cache whose Redis is away: what is known is told, and nothing is said to be gone that is not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from support.administrator import OWNER, AdminClient
from support.cached import Asker, cached_server
from support.redis import redis_8
from support.wire import eventually


def test_while_redis_is_away_the_status_is_told_and_nothing_is_removed(tmp_path: Path) -> None:
    """Status 200 with what is known; a removal is refused with 503, whether memory had the answer or nobody can tell;
    afterwards the same id is removed."""
    redis = redis_8(tmp_path / "redis").start()
    settings = {"FOREBAY_CACHE_REDIS_URL": redis.url, "FOREBAY_REDIS_TIMEOUT_S": "0.2"}
    try:
        with (
            cached_server(tmp_path, **settings) as server,
            closing(Asker(server)) as asker,
            AdminClient(server, OWNER) as owner,
        ):
            entry_id = asker.ask("One?").headers["x-cache-id"]
            eventually(lambda: owner.get("GET", "/cache")["tenants"])
            redis.pause()
            status = owner.get("GET", "/cache")
            assert (status["store"]["reads"], status["tenants"]) == (False, None)
            assert (status["cache"], status["epoch"]) == ("exact", 0)
            for _ in range(2):
                refused = owner.ask("DELETE", f"/cache/{entry_id}")
                assert (refused.status_code, refused.json()["error"]["type"]) == (503, "server_error")
            assert owner.ask("POST", "/cache/purge", {}).status_code == 503
            redis.resume()
            eventually(lambda: owner.get("GET", "/cache")["store"]["reads"])
            assert owner.get("DELETE", f"/cache/{entry_id}")["num_removed"] == 1
            assert owner.ask("DELETE", f"/cache/{entry_id}").status_code == 404
            assert asker.outcome("One?") == "miss"
            assert [row["act"] for row in owner.get("GET", "/audit")["data"]].count("cache.delete") == 1
    finally:
        redis.stop()
