"""Servers that many tests share, and a maker for tests that need one of their own."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache

import pytest
from xdist.scheduler import LoadScopeScheduling

from support.server import ServerProcess
from support.witness import Witness

KEY = "test-key-0123456789abcdef"

# Every httpx client reads the machine's certificates, which takes 20 ms; few of ours need them, and none other ones.
ssl.create_default_context = lru_cache(ssl.create_default_context)


TOGETHER = ("tests/engines/", "tests/idempotency/", "tests/stores/")
"""Folders whose files share what is dear to start, in the order of their names: loaded engines, a server with its keys,
a fleet of servers."""


class ByFile(LoadScopeScheduling):
    """With `--numprocesses`, a process takes whole files, and all of `TOGETHER` at once; the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """What nobody closed fails the last test: of what is found only when a process ends, xdist does not tell."""
    yield
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _no_data_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests build in this process, or start without saying where, keeps its data in a folder of the run's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOREBAY_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The scripted engine on the base settings, without keys. Leave it as you found it."""
    running = ServerProcess(
        tmp_path_factory.mktemp("server") / "log",
        ["--engine", "scripted"],
        {"FOREBAY_SERVED_MODEL_NAMES": "scripted,*"},
    ).start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same with one API key, `KEY`."""
    running = ServerProcess(
        tmp_path_factory.mktemp("keyed") / "log", ["--engine", "scripted"], {"FOREBAY_API_KEYS": KEY}
    ).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def witness(server: ServerProcess) -> Iterator[Witness]:
    """For modules whose `server` is a `journalled_server`."""
    with closing(Witness(server)) as reading:
        yield reading


@pytest.fixture
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """A server of the test's own: `make_server(*flags, ready_timeout_s=..., **environment)`."""
    started: list[ServerProcess] = []

    def make(*flags: str, ready_timeout_s: float | None = 60.0, **env: str) -> ServerProcess:
        process = ServerProcess(tmp_path_factory.mktemp("own") / "log", flags or ["--engine", "scripted"], env)
        started.append(process)
        return process.start(ready_timeout_s=ready_timeout_s)

    yield make
    for process in started:
        process.stop()
