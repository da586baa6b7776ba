"""The wheel, as somebody installs it who has no repository: built, installed over the base lock, started, asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay import __version__
from forebay.engines.demo_model import GGUF_FILE
from forebay.settings import Settings
from locks import ROOT


def clean_environment(**env: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOREBAY_", "PYTHON"))}
    return {**kept, "PYTHONUNBUFFERED": "1", **env}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without network from the files that git would ship."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment with the base lock and the wheel, outside the repository."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    python = venv / "bin" / "python"
    for command in (
        [sys.executable, ROOT / "scripts" / "make_venv.py", venv],
        [python, ROOT / "scripts" / "install.py", "base"],
        [python, "-m", "pip", "install", "--no-deps", "--no-index", wheel],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
    return venv / "bin"


@pytest.fixture(scope="module")
def served(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """(the running `forebay serve --engine scripted`, its base URL as it printed it)."""
    command = [programs / "forebay", "serve", "--engine", "scripted", "--port", "0"]
    folder = tmp_path_factory.mktemp("elsewhere")
    env = clean_environment() | {"XDG_DATA_HOME": str(folder)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=env)
    assert server.stdout is not None
    printed = ""
    for line in server.stdout:
        printed += line
        if "curl" in line:
            break
    url = re.search(r"answers at (http://127\.0\.0\.1:\d+/v1)", printed)
    assert url is not None, printed
    yield server, url[1]
    server.kill()
    server.communicate()


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Modules, metadata and licence; no tests, no scripts, no `.pth`."""
    names = zipfile.ZipFile(wheel).namelist()
    info = f"forebay-{__version__}.dist-info/"
    assert f"{info}licenses/LICENSE" in names
    assert "forebay/cli.py" in names
    assert {name for name in names if not name.startswith(("forebay/", info)) or name.endswith(".pth")} == set()


def test_the_installed_command_answers(served: tuple[subprocess.Popen[str], str]) -> None:
    """`forebay serve` on the base lock alone prints its base URL and answers a chat request there."""
    _, url = served
    body = {"model": "scripted", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    request = urllib.request.Request(
        f"{url}/chat/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["choices"][0]["message"]["content"]


def test_import_and_version(programs: Path, run) -> None:
    """`import forebay` offers create_app and Settings; the command knows its version."""
    shown = run(
        programs / "python", "-c", "import forebay; print(forebay.create_app.__name__, forebay.Settings.__name__)"
    )
    assert shown.stdout.split() == ["create_app", "Settings"], shown.stderr
    assert run(programs / "forebay", "version").stdout.startswith(f"forebay {__version__}\n")


def test_without_transformers_the_demo_model_names_what_to_install(programs: Path, run, tmp_path: Path) -> None:
    """Where the converter cannot run, the error says which lock to install; the checked download stays in place."""
    downloads = tmp_path / "cache" / "downloads"
    downloads.mkdir(parents=True)
    own = Settings().cache_root / "downloads" / GGUF_FILE
    if own.exists():
        shutil.copy(own, downloads)
    done = run(programs / "forebay", "model", "prepare", FOREBAY_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "transformers.lock" in done.stderr
    assert [path.name for path in downloads.iterdir()] == [GGUF_FILE]
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_without_an_engine_it_says_what_to_install(programs: Path, run) -> None:
    """The scripted engine is never chosen by itself."""
    done = run(programs / "forebay", "serve", "--port", "0")
    assert done.returncode == 2
    assert "forebay[transformers]" in done.stderr


def test_sigterm_ends_it_well(served: tuple[subprocess.Popen[str], str]) -> None:
    """Asked to stop with nothing in flight, it ends at once and successfully. The last test of this server."""
    server, _ = served
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=20) == 0
