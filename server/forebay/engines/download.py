"""One wheel from the package index that pip is configured for, unpacked by nobody and executed by nobody."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from forebay.errors import ConfigurationError

RAW_PROGRESS_SINCE = (24, 1)
RESUMES_SINCE = (25, 1)
NUM_RESUMES = 10


def download_wheel(requirement: str, directory: Path, progress: Callable[[str], None]) -> Path:
    """The wheel of `requirement` (`name==version`) in `directory`; one that lies there whole is taken as it is.

    A download whose connection breaks goes on where it was (pip 25.1 or newer); one that is killed begins anew.
    Raises ConfigurationError with pip's own last line when the index cannot be reached or has no such wheel.
    """
    name, version = requirement.split("==")
    stem = f"{name.replace('-', '_')}-{version}-"
    for wheel in directory.glob(f"{stem}*.whl"):
        if _is_whole(wheel):
            return wheel
        wheel.unlink()
    progress(f"Downloading {requirement} with pip")
    with tempfile.TemporaryDirectory(prefix=".download-", dir=directory) as scratch:
        _pip_download(requirement, Path(scratch), directory, progress)
        wheels = list(Path(scratch).glob(f"{stem}*.whl"))
        if not wheels:
            raise ConfigurationError(f"pip downloaded no wheel of {requirement}.")
        return wheels[0].rename(directory / wheels[0].name)


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError):
        return False


def _pip_download(requirement: str, target: Path, directory: Path, progress: Callable[[str], None]) -> None:
    try:
        installed = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as exc:
        raise ConfigurationError(
            f"{requirement} is fetched with pip, which this Python ({sys.executable}) lacks. Run "
            f"`{sys.executable} -m ensurepip`, or put the wheel into {directory} yourself."
        ) from exc
    pip_version = tuple(int(part) for part in installed.split(".")[:2])
    bar = "raw" if pip_version >= RAW_PROGRESS_SINCE else "off"
    resuming = ["--resume-retries", str(NUM_RESUMES)] if pip_version >= RESUMES_SINCE else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--disable-pip-version-check",
    ]
    command += [*resuming, "--no-input", "--progress-bar", bar, "--dest", str(target), requirement]
    with subprocess.Popen(  # noqa: S603 - pip, with arguments of ours
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        last = _relay(pip.stdout or (), progress)
    if pip.returncode != 0:
        raise ConfigurationError(
            f"{requirement} could not be downloaded: {last}. Check the network and pip's index settings (`pip config "
            f"list`) and start again, put the wheel into {directory} yourself, or name a local model with "
            "FOREBAY_MODEL."
        )


def _relay(lines: Iterable[str], progress: Callable[[str], None]) -> str:
    """Report every tenth part that pip reports; returns its last other line, without the `ERROR: ` before it."""
    last, next_tenth = "pip said nothing", 0
    for line in lines:
        if match := re.fullmatch(r"Progress (\d+) of (\d+)\s*", line):
            done, total = int(match[1]), int(match[2])
            tenth = done * 10 // total if total else 0
            if tenth >= next_tenth:
                next_tenth = tenth + 1
                progress(f"  {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        elif line.strip():
            last = line.strip().removeprefix("ERROR: ")
    return last
