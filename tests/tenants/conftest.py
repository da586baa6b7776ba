"""A server that asks for keys, with an owner's in its settings and its admin API beside it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.administrator import OWNER, AdminClient
from support.server import ServerProcess


@pytest.fixture(scope="session")
def governed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Bound to every address, so that nothing is open. Make keys and tenants of your own in it; leave others be."""
    running = ServerProcess(
        tmp_path_factory.mktemp("governed") / "log",
        ["--engine", "scripted", "--host", "0.0.0.0"],
        {
            "FOREBAY_API_KEYS": OWNER,
            "FOREBAY_SERVED_MODEL_NAMES": "alpha,beta",
            "FOREBAY_TRUSTED_USER_HEADER": "X-User-ID",
        },
    ).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def owner(governed: ServerProcess) -> Iterator[AdminClient]:
    with AdminClient(governed, OWNER) as client:
        yield client


@pytest.fixture(scope="session")
def service(governed: ServerProcess) -> Iterator[httpx.Client]:
    """Asks the service itself, without a key."""
    with httpx.Client(base_url=governed.url, timeout=30) as client:
        yield client
