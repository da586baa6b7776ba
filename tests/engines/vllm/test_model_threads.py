"""Keeping OpenMP's threads on cores of their own, in processes that have computed nothing yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SERVER_ROOT = Path(__file__).parents[3] / "server"
CPUS = sorted(os.sched_getaffinity(0))
PROGRAM = """
import json, logging, os, sys, threading
import torch
from forebay.engines.vllm_impl.model_threads import ModelThreads

logging.basicConfig(stream=sys.stderr, format="%(message)s")
places, prelude, later = json.loads(sys.argv[1])
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # more than there are cores, too

def compute():
    torch.ones(1 << 22).add_(1)

exec(prelude)
threads = ModelThreads(places)
before = threading.Thread(target=threading.Event().wait, daemon=True)
before.start()
threads.keep()
exec(later)
masks = {int(task): sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
main = masks.pop(threading.get_native_id())
print(json.dumps({"main": main, "free": masks.pop(before.native_id), "others": sorted(masks.values())}))
"""

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="two CPUs are needed")


def ran(places: list[list[int]], prelude: str = "", later: str = "", num_threads: int = 2) -> tuple[Any, str]:
    """Where the main thread, one that is none of OpenMP's, and those of the others that are bound may run in the end,
    and what the process has said."""
    environment = {**os.environ, "PYTHONPATH": str(SERVER_ROOT), "OMP_NUM_THREADS": str(num_threads)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([places, prelude, later])],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["others"]
    return (found["main"], found["free"], [cpus for cpus in found["others"] if cpus != CPUS]), done.stderr


def test_each_has_its_place_and_no_other_thread_has() -> None:
    """The main thread the first place, OpenMP's the next; one that was started before runs anywhere."""
    found, said = ran([[CPUS[0]], [CPUS[1]]])
    assert found == ([CPUS[0]], CPUS, [[CPUS[1]]])
    assert not said


def test_those_that_openmp_starts_again_get_the_place_back() -> None:
    """libgomp ends threads that a computation with fewer does not need, and starts others for the next one."""
    fewer = "torch.set_num_threads(2); compute(); torch.set_num_threads(3); compute(); threads.keep()"
    places = [[CPUS[0]], [CPUS[1]], [CPUS[1]]]
    found, said = ran(places, later=fewer, num_threads=3)
    assert found == ([CPUS[0]], CPUS, [[CPUS[1]], [CPUS[1]]])
    assert not said


@pytest.mark.parametrize(("places", "prelude"), [([[CPUS[0]], CPUS[1:2]], "compute()"), ([[CPUS[0]]] * 3, "")])
def test_where_other_threads_are_found_than_expected_none_is_bound(places: list[list[int]], prelude: str) -> None:
    """The log says so, and the model computes all the same."""
    found, said = ran(places, prelude, later="threads.keep()")
    assert found == (CPUS, CPUS, [])
    assert said.count("not all kept on cores of their own") == 1


def test_a_place_that_there_is_not_binds_no_thread() -> None:
    """As where the CPUs of the process were changed since."""
    found, said = ran([[CPUS[0]], [max(CPUS) + 500]])
    assert found == (CPUS, CPUS, [])
    assert "not all kept on cores of their own" in said


def test_where_one_cannot_be_bound_again_the_main_thread_is_free() -> None:
    """It would else share its core with what it starts from then on."""
    fewer = "torch.set_num_threads(2); compute(); torch.set_num_threads(3); compute(); places[2][:] = [100_000]"
    (main, free, _), said = ran([[CPUS[0]], [CPUS[1]], [CPUS[1]]], later=f"{fewer}; threads.keep()", num_threads=3)
    assert (main, free) == (CPUS, CPUS)
    assert said.count("not all kept on cores of their own") == 1
