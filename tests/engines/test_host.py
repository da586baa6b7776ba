"""The life of an engine under its host."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from asking import ask, raw, request, until

from forebay.engines.base import Engine
from forebay.engines.host import EngineHost
from forebay.engines.scripted import ScriptedEngine
from forebay.errors import ConfigurationError, EngineUnavailable
from forebay.settings import Settings

Hosts = Callable[..., EngineHost]


def build() -> Engine:
    return ScriptedEngine(Settings(_env_file=None))


class Unloadable(ScriptedEngine):
    """An engine whose start fails as a library would."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(Settings(_env_file=None))
        self._error = error

    async def start(self) -> None:
        raise self._error


@pytest.fixture
def fatal() -> list[str]:
    """What `on_fatal` was told."""
    return []


@pytest_asyncio.fixture
async def make(fatal: list[str]) -> AsyncIterator[Hosts]:
    """Hosts that are closed after the test."""
    hosts: list[EngineHost] = []

    def host(build: Callable[[], Engine] = build, **options: object) -> EngineHost:
        defaults = {"lazy": False, "stall_timeout_s": 60.0, "max_restarts": 1, "on_fatal": fatal.append}
        hosts.append(EngineHost(build, **defaults | options))
        return hosts[-1]

    yield host
    for one in hosts:
        await one.close(5)


async def die(host: EngineHost) -> None:
    """Has the engine die and waits until its consumer knows."""
    engine = await host.engine()
    with pytest.raises(EngineUnavailable):
        await ask(engine, await raw(engine, "go"), metadata={"forebay_fail": "die@0"})


async def test_an_eager_host_loads_by_itself_and_refuses_meanwhile(make: Hosts) -> None:
    """Until the engine is ready callers get EngineUnavailable with a time to come back; then they get the engine."""
    gate = threading.Event()
    host = make(lambda: (gate.wait(5), build())[1])
    host.begin()
    assert host.state == "loading"
    with pytest.raises(EngineUnavailable, match="loading") as refusal:
        await host.engine()
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1
    assert not host.health().ok
    gate.set()
    await until(lambda: host.state == "ready")
    assert host.health().ok
    assert host.reason is None
    assert host.info is not None
    assert (await host.engine()).info == host.info


async def test_a_lazy_host_loads_once_for_all_first_callers(make: Hosts) -> None:
    """Nothing is built until someone asks; all who ask at once wait for one load."""
    builds: list[None] = []

    def counted() -> Engine:
        builds.append(None)
        time.sleep(0.05)
        return build()

    host = make(counted, lazy=True)
    host.begin()
    await asyncio.sleep(0.02)
    assert (host.state, builds) == ("unloaded", [])
    assert "first request" in (host.reason or "")
    engines = await asyncio.gather(*(host.engine() for _ in range(5)))
    assert len({id(engine) for engine in engines}) == len(builds) == 1


async def test_a_caller_who_gives_up_does_not_stop_the_load(make: Hosts) -> None:
    """A lazy load goes on when the request that began it is cancelled."""
    gate = threading.Event()
    host = make(lambda: (gate.wait(5), build())[1], lazy=True)
    first = asyncio.create_task(host.engine())
    await asyncio.sleep(0.02)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert (await host.engine()).health().alive


async def test_a_dead_engine_is_replaced(make: Hosts, fatal: list[str]) -> None:
    """Within a second of its death the engine is closed and rebuilt; meanwhile callers are told to come back."""
    host = make()
    host.begin()
    await until(lambda: host.state == "ready")
    before = await host.engine()
    await die(host)
    assert not host.health().alive
    with pytest.raises(EngineUnavailable) as refusal:
        await host.engine()
    assert refusal.value.retry_after_s is not None
    await until(lambda: host.health().ok, timeout_s=3)
    engine = await host.engine()
    assert engine is not before
    assert (await ask(engine, await raw(engine, "go"), max_tokens=3)).token_ids
    assert fatal == []


async def test_a_death_too_many_is_fatal(make: Hosts, fatal: list[str]) -> None:
    """When the restarts are used up the host stays failed and says so once."""
    host = make(max_restarts=1)
    host.begin()
    for _ in range(2):
        await until(lambda: host.health().ok)
        await die(host)
    await until(lambda: host.state == "failed", timeout_s=3)
    assert fatal == ["The engine died; restarts used: 1 of 1."]
    with pytest.raises(EngineUnavailable, match="failed"):
        await host.engine()
    assert host.load().running == 0


@pytest.mark.parametrize("error", [RuntimeError("no memory yet"), ConfigurationError("no memory yet")])
async def test_a_restart_that_fails_is_one_of_the_restarts(make: Hosts, fatal: list[str], error: Exception) -> None:
    """While restarts are left the next one is tried; a request is served again after it."""
    engines = iter([build(), Unloadable(error), build()])
    host = make(lambda: next(engines), max_restarts=2)
    host.begin()
    await until(lambda: host.state == "ready")
    await die(host)
    await until(lambda: host.state == "restarting", timeout_s=3)
    await until(lambda: host.health().ok, timeout_s=5)
    assert (host.num_restarts, fatal) == (2, [])
    assert (await ask(await host.engine(), await raw(await host.engine(), "go"), max_tokens=3)).token_ids


async def test_the_last_restart_that_fails_is_fatal_in_its_own_words(make: Hosts, fatal: list[str]) -> None:
    """The operator reads why the engine could not be had again."""
    engines = iter([build(), Unloadable(ConfigurationError("The model directory is gone."))])
    host = make(lambda: next(engines), max_restarts=1)
    host.begin()
    await until(lambda: host.state == "ready")
    await die(host)
    await until(lambda: host.state == "failed", timeout_s=3)
    assert fatal == ["The model directory is gone."]


async def test_configuration_errors_reach_the_operator_word_for_word(make: Hosts, fatal: list[str]) -> None:
    """A build that cannot serve is fatal at once, with its own sentence; clients learn only that it failed."""

    def refuse() -> Engine:
        raise ConfigurationError("Install the left-handed thing.")

    host = make(refuse)
    host.begin()
    await until(lambda: host.state == "failed")
    assert fatal == ["Install the left-handed thing."]
    assert host.reason == "The engine failed."


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
async def test_a_failing_load_is_fatal_and_leaks_nothing(make: Hosts, fatal: list[str], lazy: bool) -> None:
    """Whoever waits gets EngineUnavailable without the library's words, which go to the operator alone."""
    host = make(lambda: Unloadable(RuntimeError("secret path /x")), lazy=lazy)
    host.begin()
    if lazy:
        with pytest.raises(EngineUnavailable) as refusal:
            await host.engine()
        assert "/x" not in refusal.value.message
    await until(lambda: bool(fatal))
    assert "secret path /x" in fatal[0]
    assert "/x" not in (host.reason or "")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
    ids=["python", "torch cpu", "torch cuda"],
)
async def test_a_model_that_does_not_fit_says_what_to_change(make: Hosts, fatal: list[str], error: Exception) -> None:
    """Out of memory at load names the settings that lower the need."""
    host = make(lambda: Unloadable(error))
    host.begin()
    await until(lambda: bool(fatal))
    for setting in ("FOREBAY_MAX_MODEL_LEN", "FOREBAY_KV_CACHE_MEMORY_MIB", "FOREBAY_MODEL"):
        assert setting in fatal[0]


async def test_a_stalled_engine_is_unhealthy_until_it_moves(make: Hosts) -> None:
    """Work present and no counter moving for the stall limit: alive, not progressing, with a reason; well again."""
    host = make(stall_timeout_s=0.4)
    host.begin()
    await until(lambda: host.state == "ready")
    engine = await host.engine()
    prompt = await raw(engine, "go")
    stream = engine.generate(request(prompt, metadata={"forebay_fail": "hang@1"}))
    await anext(aiter(stream))
    assert host.health().ok
    await until(lambda: not host.health().ok, timeout_s=3)
    health = host.health()
    assert (health.alive, health.progressing) == (True, False)
    assert "0.4 s" in (health.reason or "")
    await stream.aclose()
    await until(lambda: host.health().ok, timeout_s=3)


async def test_an_idle_engine_is_never_stalled(make: Hosts) -> None:
    """Without work, counters that stand still mean nothing."""
    host = make(stall_timeout_s=0.1)
    host.begin()
    await until(lambda: host.state == "ready")
    await asyncio.sleep(0.7)
    assert host.health().ok


async def test_closing_ends_the_engine_and_its_waiters(make: Hosts) -> None:
    """After `close` nothing is served, who streamed is told, and closing again is harmless."""
    host = make()
    host.begin()
    await until(lambda: host.state == "ready")
    engine = await host.engine()
    asked = request(await raw(engine, "go"), max_tokens=500, metadata={"forebay_inter_token_ms": "20"})
    waiter = asyncio.create_task(drain(engine, asked))
    await until(lambda: engine.load().running == 1)
    await host.close(1)
    await host.close(1)
    assert host.state == "closed"
    with pytest.raises(EngineUnavailable):
        await asyncio.wait_for(waiter, 1)
    with pytest.raises(EngineUnavailable, match="closed"):
        await host.engine()


async def test_closing_does_not_wait_for_a_load(make: Hosts) -> None:
    """A download that is under way does not hold up the end; callers who waited for it are told."""
    gate = threading.Event()
    host = make(lambda: (gate.wait(30), build())[1], lazy=True)
    waiter = asyncio.create_task(host.engine())
    await until(lambda: host.state == "loading")
    async with asyncio.timeout(1):
        await host.close(5)
        with pytest.raises(EngineUnavailable):
            await waiter
    gate.set()


async def drain(engine: Engine, asked: object) -> None:
    async with contextlib.aclosing(engine.generate(asked)) as stream:
        async for _ in stream:
            pass
