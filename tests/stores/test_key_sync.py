"""Keys that are made, changed and revoked at one server hold at the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.administrator import OWNER, AdminClient, Made
from support.command import forebay
from support.fleet import fleet
from support.server import ServerProcess
from support.wire import eventually


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


class Asked:
    """One server, asked with keys."""

    def __init__(self, server: ServerProcess, http: httpx.Client) -> None:
        self.server = server
        self._http = http

    def status(self, key: Made) -> int:
        return self._http.get(self.server.url + "/v1/models", headers=key.headers).status_code

    def gauge(self, name: str) -> float:
        lines = self._http.get(self.server.url + "/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    def comes_up(self) -> None:
        eventually(lambda: self.gauge("forebay_redis_up") == 1)


@pytest.fixture(scope="module")
def pair(four: Any, http: httpx.Client) -> tuple[Asked, Asked]:
    """The first and the last of the four."""
    one, two = Asked(four.servers[0], http), Asked(four.servers[3], http)
    for asked in (one, two):
        asked.comes_up()
    return one, two


def test_a_key_is_good_everywhere_until_it_is_revoked(pair: tuple[Asked, Asked]) -> None:
    """Made, limited, revoked, over the API and on the command line."""
    one, two = pair
    with AdminClient(one.server, OWNER) as first, AdminClient(two.server, OWNER) as second:
        key = first.make(name="shared", tenant="acme")
        eventually(lambda: two.status(key) == 200)
        second.get("PUT", "/tenants/acme", {"limits": {"requests_per_minute": 1}})
        eventually(lambda: first.get("GET", "/tenants/acme")["limits"]["requests_per_minute"] == 1)
        second.get("POST", f"/keys/{key.id}/revoke")
        assert two.status(key) == 401
        eventually(lambda: one.status(key) == 401)
        other = second.make()
        eventually(lambda: one.status(other) == 200)
        assert forebay("keys", "revoke", other.id, data_dir=one.server.data_dir).returncode == 0
        eventually(lambda: one.status(other) == two.status(other) == 401)


def test_while_redis_is_away_every_server_knows_its_own(pair: tuple[Asked, Asked], four: Any) -> None:
    """Keys go on working; what was changed meanwhile is exchanged when Redis is back, though it has lost everything."""
    one, two = pair
    with AdminClient(one.server, OWNER) as first, AdminClient(two.server, OWNER) as second:
        old, doomed = first.make(), first.make()
        eventually(lambda: two.status(old) == two.status(doomed) == 200)
        four.redis.kill()
        for asked in pair:
            eventually(lambda asked=asked: asked.gauge("forebay_redis_up") == 0)
        new = second.make()
        first.get("POST", f"/keys/{doomed.id}/revoke")
        eventually(lambda: one.status(doomed) == 401 and two.status(new) == 200)
        assert (one.status(old), two.status(old), two.status(doomed), one.status(new)) == (200, 200, 200, 401)
        four.redis.start()
        for asked in pair:
            asked.comes_up()
        eventually(lambda: two.status(doomed) == 401 and one.status(new) == 200)
        assert (one.status(old), two.status(old)) == (200, 200)


def test_a_new_server_is_told_all(pair: tuple[Asked, Asked], four: Any, http: httpx.Client, tmp_path: Path) -> None:
    """It knows which keys are good and which were revoked. A row that it does not understand is left alone."""
    redis = four.redis
    with AdminClient(pair[0].server, OWNER) as first:
        good, revoked = first.make(), first.make()
        first.get("POST", f"/keys/{revoked.id}/revoke")
    strange = '{"id": "strange"}'
    redis.command("HSET", "forebay:rows", "k:strange", strange)
    redis.command("ZADD", "forebay:rows:changed", redis.command("INCR", "forebay:rows:version"), "k:strange")
    with fleet(redis, tmp_path, 1) as (server,):
        third = Asked(server, http)
        eventually(lambda: third.status(good) == 200)
        assert third.status(revoked) == 401
        line = eventually(lambda: next((one for one in server.log.splitlines() if "not_understood" in one), None))
        assert '"row":"k:strange"' in line
        assert third.gauge("forebay_keys_age_seconds") < 5
    assert redis.command("HGET", "forebay:rows", "k:strange") == strange
