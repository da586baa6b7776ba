"""Where the event loop's thread runs beside an engine that has a core of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from asking import ask, raw, until
from structlog.testing import capture_logs

from forebay.engines.base import EngineInfo
from forebay.engines.host import EngineHost
from forebay.engines.loop_place import LoopPlace
from forebay.engines.scripted import ScriptedEngine
from forebay.errors import EngineUnavailable
from forebay.settings import Settings

CPUS = os.sched_getaffinity(0)

# With one CPU there is nothing to keep off: `keep_off` leaves the thread where it is.
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="two CPUs are needed")


@pytest.fixture
def place() -> Iterator[LoopPlace]:
    place = LoopPlace()
    yield place
    place.leave()
    assert os.sched_getaffinity(0) == CPUS


def test_it_keeps_off_those_cpus_until_it_leaves(place: LoopPlace) -> None:
    """Of the CPUs there are the thread has the others, and all of them again afterwards, also when left twice."""
    first = min(CPUS)
    place.keep_off([first])
    assert os.sched_getaffinity(0) == CPUS - {first}
    place.leave()
    assert os.sched_getaffinity(0) == CPUS
    place.leave()


@pytest.mark.parametrize("cpus", [[], sorted(CPUS), [max(CPUS) + 1000]], ids=["none", "all", "another's"])
def test_where_none_would_be_left_or_none_is_named_it_runs_anywhere(place: LoopPlace, cpus: list[int]) -> None:
    """No CPUs named, all that there are, or others' ones: nothing changes."""
    place.keep_off(cpus)
    assert os.sched_getaffinity(0) == CPUS


def test_cpus_that_were_taken_away_meanwhile_are_logged(place: LoopPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread runs on, and a warning says why it is not where it should be."""

    def refuse(thread: int, cpus: object) -> None:
        raise OSError(22, "Invalid argument")

    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(os, "sched_setaffinity", refuse)
        place.keep_off([min(CPUS)])
    assert [entry["event"] for entry in logged] == ["loop_not_placed"]


async def test_the_loop_keeps_off_an_engines_cpu_while_the_engine_lives() -> None:
    """Not while the next one is built, whose process and threads would inherit it, and not afterwards."""
    built_on = []

    class Placed(ScriptedEngine):
        @property
        def info(self) -> EngineInfo:
            return replace(super().info, step_cpus=(min(CPUS),))

    def build() -> Placed:
        built_on.append(os.sched_getaffinity(0))
        return Placed(Settings(_env_file=None))

    host = EngineHost(build, lazy=False, stall_timeout_s=60.0, max_restarts=1, on_fatal=lambda reason: None)
    try:
        host.begin()
        await until(lambda: host.state == "ready")
        assert os.sched_getaffinity(0) == CPUS - {min(CPUS)}
        engine = await host.engine()
        with pytest.raises(EngineUnavailable):
            await ask(engine, await raw(engine, "go"), metadata={"forebay_fail": "die@0"})
        await until(lambda: host.num_restarts == 1 and host.state == "ready")
        assert os.sched_getaffinity(0) == CPUS - {min(CPUS)}
    finally:
        await host.close(5)
    assert os.sched_getaffinity(0) == CPUS
    assert built_on == [CPUS] * 2
