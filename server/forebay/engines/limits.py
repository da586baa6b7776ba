"""What this process may use of the machine: cores and memory, inside a container too."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
NODES = Path("/sys/devices/system/node")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of x86 and of ARM, as /proc/cpuinfo names them."""


def allowed_cpus() -> list[int]:
    """Ids of the logical CPUs this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cpus(
    *, one_node: bool = False, allowed: list[int] | None = None, cgroup: Path = CGROUP, nodes: Path = NODES
) -> list[int]:
    """Ids of the cores this process may run on, one a physical core, fewer where a CPU quota allows less.

    With `one_node` those of the first one's memory node only. `allowed` stands for the CPUs of the process.
    """
    cpus = allowed_cpus() if allowed is None else allowed
    cores = _one_per_physical_core(cpus)
    node = _node_of(cores[0], nodes) if one_node else None
    if node is not None:
        local = set(parse_cpus((node / "cpulist").read_text()))
        cores = [core for core in cores if core in local]
    quota = _cpu_quota(cgroup)
    return cores if quota is None else cores[: max(1, math.ceil(quota))]


def has_quota(*, allowed: list[int] | None = None, cgroup: Path = CGROUP) -> bool:
    """Whether this process may use only a part of the time of the CPUs that it may run on."""
    quota = _cpu_quota(cgroup)
    return quota is not None and quota < len(allowed_cpus() if allowed is None else allowed)


def siblings_of(cpu: int) -> list[int]:
    """Ids of the logical CPUs of its physical core that this process may run on, `cpu` among them."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    core = set(parse_cpus(siblings.read_text())) if siblings.is_file() else set()
    return sorted((core & set(allowed_cpus())) | {cpu})


def available_memory(*, one_node: bool = False, cgroup: Path = CGROUP, nodes: Path = NODES) -> int:
    """Bytes that may still be taken: the least of the machine's and the container's; with `one_node`, also of the
    memory node of the first core that this process may use."""
    bounds = [psutil.virtual_memory().available]
    node = _node_of(allowed_cpus()[0], nodes) if one_node else None
    if node is not None:
        bounds.append(_node_available(node))
    limit = _read_number(cgroup / "memory.max")
    used = _read_number(cgroup / "memory.current")
    if limit is not None and used is not None:
        bounds.append(max(0, limit - used))
    return min(bounds)


def parse_cpus(text: str) -> list[int]:
    """The kernel's list format, `0-3,8`, in its order. Raises ValueError for anything else."""
    cpus: list[int] = []
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        cpus += range(int(first), int(last) + 1) if dash else [int(first)]
    return cpus


def computes_bf16() -> bool:
    """Whether the processor multiplies bfloat16 by itself; emulated, it is slower than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return False
    words = set(cpuinfo.read_text().split())
    return any(flag in words for flag in BF16_FLAGS)


def _one_per_physical_core(cpus: list[int]) -> list[int]:
    """Hyper-threads of a core that is already in use add contention, not speed, to matrix products."""
    taken: set[str] = set()
    kept = []
    for cpu in cpus:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        core = siblings.read_text().strip() if siblings.is_file() else str(cpu)
        if core not in taken:
            taken.add(core)
            kept.append(cpu)
    return kept


def _cpu_quota(cgroup: Path) -> float | None:
    """Cores' worth of time that a container may use; None without a limit (control groups version 2)."""
    limit = cgroup / "cpu.max"
    if not limit.is_file():
        return None
    quota, period = limit.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _node_of(cpu: int, nodes: Path) -> Path | None:
    """The memory node that `cpu` belongs to, as the kernel shows it; None on a machine without such nodes."""
    for cpulist in sorted(nodes.glob("node*/cpulist")):
        text = cpulist.read_text()
        if text.strip() and cpu in parse_cpus(text):
            return cpulist.parent
    return None


def _node_available(node: Path) -> int:
    kib = {}
    for line in (node / "meminfo").read_text().splitlines():
        _, _, name, number, *_ = line.split()
        kib[name.rstrip(":")] = int(number)
    reclaimable = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
    return sum(kib[name] for name in reclaimable) * 1024


def _read_number(path: Path) -> int | None:
    if not path.is_file():
        return None
    text = path.read_text().strip()
    return int(text) if text.isdigit() else None
