"""The cache as the settings ask for it, and what a server without it does not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.cache.aims import read_aims
from forebay.cache.stores.auto import build_cache_store
from forebay.cache.stores.base import Held
from forebay.errors import ConfigurationError
from forebay.settings import Settings
from support.entries import embedding, sealed, sized
from support.redis import RedisProcess
from support.server import SERVER_ROOT

ENV = os.environ | {"PYTHONPATH": str(SERVER_ROOT)}
YEAR_MS = 366 * 86_400_000


@pytest.mark.parametrize("shared", [False, True], ids=["file", "redis"])
async def test_what_the_settings_ask_for(shared: bool, redis: RedisProcess, prefix: str, tmp_path: Path) -> None:
    """A file, or Redis where there is one; quotas in MiB; found again by the next server."""
    address = {"cache_redis_url": redis.url, "redis_prefix": prefix} if shared else {}
    settings = Settings(cache="semantic", cache_tenant_mib=1, data_dir=tmp_path, **address)
    for _ in range(2):
        store = build_cache_store(settings, tmp_path)
        store.begin()
        for i in range(3):
            store.put(sized(f"e{i}", 400_000, vector=embedding(1, i), expires_in_ms=YEAR_MS))
        await store.close()
    store = build_cache_store(settings, tmp_path)
    assert [near.entry.id for near in await store.nearest("s1", embedding(1), 5)] == ["e1", "e2"]
    assert await store.held() == {"acme": Held(2, 800_000)}
    assert (tmp_path / "cache.sqlite3").exists() is not shared
    await store.close()


async def test_the_exact_tier_searches_nothing(tmp_path: Path) -> None:
    """And answers all the same."""
    store = build_cache_store(Settings(cache="exact"), tmp_path)
    store.begin()
    store.put(entry := sealed("a", vector=embedding(1), expires_in_ms=YEAR_MS))
    assert await store.get("a") == entry
    assert await store.nearest("s1", embedding(1), 5) == []
    await store.close()


def test_a_redis_address_that_is_none(tmp_path: Path) -> None:
    """Is said before anything is served, without the password."""
    with pytest.raises(ConfigurationError, match="must be redis://") as caught:
        build_cache_store(Settings(cache="exact", cache_redis_url="http://:canary@localhost"), tmp_path)
    assert "canary" not in str(caught.value)


def test_a_server_without_the_cache_loads_nothing_for_it() -> None:
    """numpy and redis-py come with what needs them; importing has no effect."""
    code = (
        "import sys, forebay.cache.stores.auto, forebay.cache.policy, forebay.cache.scope, forebay.cache.flight\n"
        "sys.exit(bool({'numpy', 'redis', 'torch'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=ENV, timeout=60).returncode == 0


def test_without_numpy_the_semantic_tier_says_what_is_missing(tmp_path: Path) -> None:
    """By the extra that brings it."""
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "from pathlib import Path\n"
        "from forebay.cache.stores.auto import build_cache_store\n"
        "from forebay.settings import Settings\n"
        f"build_cache_store(Settings(cache='exact'), Path({str(tmp_path)!r}))\n"
        f"build_cache_store(Settings(cache='semantic'), Path({str(tmp_path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=60)
    assert "forebay[semantic]" in done.stderr.splitlines()[-1]


def test_owners_may_have_error_rates_of_their_own() -> None:
    """Tenants and sharing groups by name, all others the general one; suspicion labels ten times as many hits."""
    aims_of = read_aims(0.01, ("acme=0.05", "group:eu=0.002"), 0.02)
    assert [aims_of(owner).max_error_rate for owner in ("acme", "group:eu", "eu", "other")] == [0.05, 0.002, 0.01, 0.01]
    assert (aims_of("other").hit_rate, aims_of("other").suspicious_rate) == (0.02, 0.2)
    assert read_aims(0.01, (), 0.5)("other").suspicious_rate == 1.0


@pytest.mark.parametrize("wrong", ["acme", "acme=much", "acme=0", "acme=0.6", "no name=0.1", "group:=0.1", "=0.1"])
def test_an_error_rate_that_is_none(wrong: str) -> None:
    """Names the setting and what was given."""
    with pytest.raises(ConfigurationError, match="FOREBAY_CACHE_ERROR_RATES") as caught:
        read_aims(0.01, (wrong,), 0.02)
    assert repr(wrong) in str(caught.value)
