"""What an engine on a CPU takes of the machine, on machines that are not this one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forebay.engines.limits import available_memory, has_quota, parse_cpus, siblings_of, usable_cpus
from forebay.engines.sizing import choose_threads
from forebay.settings import Settings

FAR = range(10_000, 10_064)
"""Ids of CPUs that this machine does not have, so that it says nothing of their cores."""


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)


@pytest.mark.parametrize(
    ("cpu_max", "num_cores"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", 64)]
)
def test_a_cpu_quota_bounds_the_cores(tmp_path: Path, cpu_max: str, num_cores: int) -> None:
    """Of 64 cores a container that may use two cores' worth of time gets two threads, a part of one still gets one."""
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    cores = usable_cpus(allowed=list(FAR), cgroup=tmp_path)
    assert len(cores) == num_cores
    assert choose_threads(settings(), cores) == (63 if num_cores == 64 else num_cores)


@pytest.mark.parametrize(
    ("cpu_max", "lent"), [("150000 100000", True), ("200000 100000", False), ("max 100000", False)]
)
def test_a_quota_lends_a_part_of_the_cpus(tmp_path: Path, cpu_max: str, lent: bool) -> None:
    """Of two CPUs a part is lent by a quota below two, and of four, be they two cores, by one of two."""
    (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")
    assert has_quota(allowed=[0, 1], cgroup=tmp_path) == lent
    assert has_quota(allowed=[0, 1, 2, 3], cgroup=tmp_path) == (not cpu_max.startswith("max"))
    assert not has_quota(allowed=[0, 1], cgroup=tmp_path / "none")


def test_the_cpus_of_a_core() -> None:
    """Those that this process may run on, the one that is asked about among them."""
    for cpu in os.sched_getaffinity(0):
        assert cpu in siblings_of(cpu)
        assert set(siblings_of(cpu)) <= os.sched_getaffinity(0)


def test_a_memory_limit_bounds_the_memory(tmp_path: Path) -> None:
    """What the container has left counts, not what the machine has; nothing below zero."""
    (tmp_path / "memory.max").write_text("4096000\n")
    for used, left in ((96_000, 4_000_000), (5_000_000, 0)):
        (tmp_path / "memory.current").write_text(f"{used}\n")
        assert available_memory(cgroup=tmp_path) == left


def test_cores_of_one_memory_node(tmp_path: Path) -> None:
    """On a machine with several, those of the node of the first core; all where the machine shows no nodes."""
    for number, cpus in enumerate(("10000-10031", "10032-10063")):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "cpulist").write_text(f"{cpus}\n")
    none = tmp_path / "none"
    assert usable_cpus(one_node=True, allowed=list(FAR), cgroup=none, nodes=tmp_path) == list(range(10_000, 10_032))
    assert usable_cpus(one_node=True, allowed=[10_040], cgroup=none, nodes=tmp_path) == [10_040]
    assert usable_cpus(one_node=True, allowed=list(FAR), cgroup=none, nodes=none) == list(FAR)
    assert usable_cpus(allowed=list(FAR), cgroup=none, nodes=tmp_path) == list(FAR)


def test_lists_of_cpus() -> None:
    """The kernel's format; anything else is refused."""
    assert parse_cpus("0-2,8\n") == [0, 1, 2, 8]
    for text in ("", "a", "0-", "1,,2"):
        with pytest.raises(ValueError, match="invalid literal"):
            parse_cpus(text)


@pytest.mark.parametrize(("num_cores", "threads"), [(1, 1), (2, 2), (4, 4), (5, 4), (64, 63)])
def test_threads_by_cores(num_cores: int, threads: int) -> None:
    """All of up to four cores; of more, one is left to the server."""
    assert choose_threads(settings(), list(range(num_cores))) == threads


def test_threads_by_setting() -> None:
    """The operator's number counts as it is."""
    assert choose_threads(settings(cpu_threads=3), [0, 1]) == 3


def test_this_machine_is_seen() -> None:
    """The cores found are cores this process may run on; the memory found is some, and no more than there is."""
    assert set(usable_cpus()) <= os.sched_getaffinity(0)
    assert usable_cpus()
    assert usable_cpus(one_node=True)
    for one_node in (False, True):
        assert 0 < available_memory(one_node=one_node) <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
