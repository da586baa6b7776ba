"""Whether a model can be compiled for this machine's CPU, and where its code is kept."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

TRIAL = """
#include <Python.h>
#include <omp.h>
extern "C" int trial() { return omp_get_max_threads(); }
"""
LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
TRIAL_S = 60


def code_folder(root: Path) -> Path:
    """Below `root`, by kind of CPU: the code is in this one's instructions, and the folder may be another's, too."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    digest = hashlib.sha256("\n".join([platform.machine(), *kind]).encode()).hexdigest()
    return root / "torch-inductor" / digest[:12]


@lru_cache
def obstacle_to_compiling(folder: Path) -> str | None:
    """Why torch's inductor cannot build kernels here and keep them in `folder`, which is made; None where it can.

    It wants a C++ compiler with OpenMP (`CXX`, one program without arguments, else g++) and Python's headers. Found out
    by building a library and loading it in another process: blocks for about a second.
    """
    name = os.environ.get("CXX", "g++")
    compiler = shutil.which(name)
    if compiler is None:
        return f"there is no C++ compiler of the name {name!r}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as trial:
            source, library = Path(trial, "trial.cpp"), Path(trial, "trial.so")
            source.write_text(TRIAL)
            headers = f"-I{sysconfig.get_path('include')}"
            _run(compiler, "-shared", "-fPIC", "-fopenmp", headers, str(source), "-o", str(library))
            _run(sys.executable, "-c", LOAD, str(library))
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.decode(errors="replace").splitlines()
        said = next((line for line in lines if "error" in line.lower()), f"exit code {exc.returncode}")
        return f"{name} cannot build for Python with OpenMP ({said})"
    except (OSError, subprocess.SubprocessError) as exc:
        return f"code cannot be built in {folder} ({exc})"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=TRIAL_S)  # noqa: S603 - our own words
