"""Rules that hold for every file of the repository and for the environment it is tested in."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

from check_sizes import overlong, oversized
from locks import ROOT

PTH_OWNERS = {"distutils-precedence.pth": "setuptools"}
"""A `.pth` file runs code at every start of Python (LiteLLM 1.82.7 was taken over that way): each has a known owner."""

PUBLIC_HOSTS = {"download.pytorch.org", "pypi.org", "cdn.jsdelivr.net"}
LOCAL_PATHS = re.compile(r"(?<![\w.:])/(?:root|work|Users|mnt|home/(?!forebay\b))[/\w.-]*|/opt/(?:wheels|pypi)\b")
PATHS_IN_IMAGES = {("Dockerfile", "/root/.cache/pip"), ("scripts/run_dockerfile.py", "/root")}
REGISTRIES = re.compile(r"https?://([\w.-]+)/(?:simple|whl|pypi|artifactory|repository|npm)\b")


def tracked_text() -> dict[str, str]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    return {str(path.relative_to(ROOT)): path.read_text(errors="replace") for path in paths}


def test_no_file_exceeds_three_hundred_lines() -> None:
    """A file holds one concept and stops at three hundred lines."""
    assert oversized() == []


def test_no_line_exceeds_a_hundred_and_twenty_columns() -> None:
    """Docstrings and comments too, which the formatter leaves alone."""
    assert overlong() == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    """The repository means the same on every machine: it names no home, work directory or local package store."""
    files = tracked_text()
    assert len(files) > 50
    files.pop("tests/setup/test_repository.py")
    found = {(name, path) for name, text in files.items() for path in LOCAL_PATHS.findall(text)}
    assert found - PATHS_IN_IMAGES == set()


def test_only_public_registries_are_named() -> None:
    """pip's configuration says where packages come from; the repository names PyTorch's public index, and the
    CDN that browsers have the scripts of /docs from, and no other."""
    hosts = {(name, host) for name, text in tracked_text().items() for host in REGISTRIES.findall(text)}
    assert hosts, "the pattern finds PyTorch's index at least"
    assert {(name, host) for name, host in hosts if host not in PUBLIC_HOSTS} == set()


def test_every_pth_file_is_known() -> None:
    """No package of the environment starts code of its own with Python, but for the listed ones."""
    site_packages = Path(sysconfig.get_path("purelib"))
    for path in site_packages.glob("*.pth"):
        assert path.name in PTH_OWNERS, f"{path.name} is not on the list"
        files = importlib.metadata.files(PTH_OWNERS[path.name]) or []
        assert path.name in {str(file) for file in files}, f"{path.name} does not come from {PTH_OWNERS[path.name]}"


def test_heavy_libraries_are_imported_late() -> None:
    """Everything up to the engines imports without torch, Transformers, vLLM or a Redis client."""
    modules = "forebay.cli, forebay.app, forebay.serving, forebay.engines.auto, forebay.engines.model_source"
    heavy = "{'torch', 'transformers', 'vllm', 'redis', 'tokenizers', 'numpy'} & sys.modules.keys()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "server")}
    command = [sys.executable, "-c", f"import sys, {modules}; print(sorted({heavy}))"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
