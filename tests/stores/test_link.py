"""The address of Redis in the settings, and what redis-py raises."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import exceptions

from forebay.stores.redis_impl.link import RedisLink, RedisUnavailable, redis_errors
from support.command import forebay
from support.redis import RedisProcess
from support.server import SERVER_ROOT

PASSWORD = "canary-password"


def classes(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


@pytest.mark.parametrize(
    "kind", [*classes(exceptions.RedisError), TimeoutError, ConnectionResetError, OSError, RuntimeError]
)
def test_every_foreign_exception_is_translated(kind: type[Exception]) -> None:
    """Into one of ours, without its words: they may quote the address."""
    error = kind.__new__(kind)
    error.args = (PASSWORD,)
    with pytest.raises(RedisUnavailable) as caught, redis_errors():
        raise error
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://:{PASSWORD}@localhost", f"redis://:{PASSWORD}@localhost:port"])
def test_an_address_that_is_none(url: str, tmp_path: Path) -> None:
    """The process ends with a sentence that names the setting, and never the password."""
    done = forebay("serve", data_dir=tmp_path, FOREBAY_ENGINE="scripted", FOREBAY_REDIS_URL=url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("forebay: FOREBAY_REDIS_URL must be redis://")
    assert PASSWORD not in done.stderr


def test_without_redis_py(tmp_path: Path) -> None:
    """What is missing is named by the extra that brings it."""
    code = "import sys; sys.modules['redis'] = None; from forebay.cli import main; sys.exit(main(['serve']))"
    env = {"PYTHONPATH": str(SERVER_ROOT), "FOREBAY_DATA_DIR": str(tmp_path), "FOREBAY_REDIS_URL": "redis://localhost"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | env | {"FOREBAY_ENGINE": "scripted", "FOREBAY_PORT": "0", "FOREBAY_ADMIN_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr == "forebay: FOREBAY_REDIS_URL needs redis-py: install forebay[redis].\n"


async def test_a_cancellation_is_never_swallowed(tmp_path: Path) -> None:
    """At whatever step of a call it comes: who closes would wait for ever for a task that goes on."""
    redis = RedisProcess(tmp_path / "redis").start()
    try:
        link = RedisLink(redis.url, "", 5.0)
        await link.call("PING")
        for num_steps in range(60):
            calling = asyncio.create_task(link.call("PING"))
            for _ in range(num_steps):
                await asyncio.sleep(0)
            if calling.cancel():
                await asyncio.wait([calling])
                assert calling.cancelled(), num_steps
        await link.close()
    finally:
        redis.stop()
