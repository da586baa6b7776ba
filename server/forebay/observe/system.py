"""What the machine gives to this process: CPU, memory, GPUs. All of it blocks for milliseconds: call it in a thread."""

from __future__ import annotations

import importlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import psutil
import structlog

FRESH_S = 1.0
"""A sample this young is given again: scrapes in a row cost nothing."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """`cpu_s` is user and system time since start, `rss` resident bytes, both summed over `num_processes` processes."""

    num_processes: int
    cpu_s: float
    rss: int


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One device as NVML sees it, whoever uses it. `busy`: share of the last sample period with a kernel running."""

    index: int
    name: str
    busy: float
    memory_used: int
    memory_total: int


@dataclass(frozen=True, slots=True)
class SystemSample:
    """`server` is this process, `children` what it started (vLLM's engine core and workers).

    `cpu_percent` of both together since the sample before, 100 per core; None in the first sample.
    """

    at: float
    server: ProcessUse
    children: ProcessUse
    cpu_percent: float | None
    num_open_files: int
    gpus: tuple[GpuUse, ...]


class SystemMonitor:
    """Samples at most once a second; safe to call from several threads."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._lock = threading.Lock()
        self._last: SystemSample | None = None
        self._nvml = _load_nvml()

    def sample(self) -> SystemSample:
        with self._lock:
            if self._last is None or time.monotonic() - self._last.at >= FRESH_S:
                self._last = self._measure(self._last)
            return self._last

    def _measure(self, before: SystemSample | None) -> SystemSample:
        server = _use_of([self._process])
        children = _use_of(self._process.children(recursive=True))
        now = time.monotonic()
        percent = None
        if before is not None:
            # A child that ended took its CPU time along: count what is left as no less than zero.
            spent = (server.cpu_s - before.server.cpu_s) + max(0.0, children.cpu_s - before.children.cpu_s)
            percent = round(100 * spent / (now - before.at), 1)
        return SystemSample(now, server, children, percent, self._process.num_fds(), self._gpus())

    def _gpus(self) -> tuple[GpuUse, ...]:
        if self._nvml is None:
            return ()
        nvml = self._nvml
        try:
            return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError as exc:
            _log.warning("gpu_sampling_stopped", reason=str(exc))
            self._nvml = None
            return ()


def _use_of(processes: list[psutil.Process]) -> ProcessUse:
    count, cpu_s, rss = 0, 0.0, 0
    for process in processes:
        try:
            with process.oneshot():
                times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:  # it ended between the listing and the look
            continue
        count, cpu_s, rss = count + 1, cpu_s + times.user + times.system, rss + memory.rss
    return ProcessUse(count, cpu_s, rss)


def _load_nvml() -> Any:
    """NVIDIA's management library (package nvidia-ml-py), or None where it or a driver is missing."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _gpu(nvml: Any, index: int) -> GpuUse:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError_NotSupported:  # MIG slices do not report it
        busy = 0.0
    return GpuUse(index, name if isinstance(name, str) else name.decode(), busy, int(memory.used), int(memory.total))
