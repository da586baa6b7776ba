"""Carry out one target of the Dockerfile without a container engine, and run a command in the result.

    python scripts/run_dockerfile.py --target cpu --into DIRECTORY [--build-arg NAME=VALUE] [-- COMMAND ...]

Every stage gets a directory of its own that is the root of its file system (chroot in a private mount namespace), with
the build's own environment and nothing of the caller's but pip's configuration, proxies and certificates.

What it maps, and so cannot show: the base image is this machine's /usr, /etc and Python, read-only; RUN steps that call
apt-get or useradd are not run (packages are looked up by name, directories made) and USER is ignored; cache mounts are
plain directories; .dockerignore is applied for the simple patterns that ours holds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from dockerfile import Dockerfile, Instruction, assignments, expand, parse

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = ("/usr", "/etc", "/dev", "/proc", "/sys")
LINKS = ("/bin", "/sbin", "/lib", "/lib64")
PRIVILEGED = re.compile(r"\b(apt-get|useradd)\b")
PROXIES = re.compile(r"(?i)(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|PIP_\w+")


class Build:
    """The stages built so far: name -> root directory and environment."""

    def __init__(self, dockerfile: Dockerfile, into: Path, build_arguments: Mapping[str, str]) -> None:
        self.dockerfile = dockerfile
        self.into = into
        self.build_arguments = build_arguments
        self.environments: dict[str, dict[str, str]] = {}

    def root(self, name: str) -> Path:
        return self.into / name

    def stage(self, name: str) -> None:
        """Build the stage and all that it needs, once."""
        if name in self.environments:
            return
        stage = self.dockerfile.stages[name]
        root = self.root(name)
        if stage.base in self.dockerfile.stages:
            self.stage(stage.base)
            shutil.copytree(self.root(stage.base), root, symlinks=True, copy_function=os.link)
            environment = dict(self.environments[stage.base])
        else:
            print(f"FROM {stage.base}: this machine's {sys.version.split()[0]} stands in", flush=True)
            root.mkdir(parents=True)
            environment = _base_image(root)
        arguments: dict[str, str] = {}
        for instruction in stage.instructions:
            self._carry_out(instruction, root, environment, arguments)
        self.environments[name] = environment

    def _carry_out(self, step: Instruction, root: Path, environment: dict[str, str], arguments: dict[str, str]) -> None:
        variables = {**arguments, **environment}
        if step.name == "ENV":
            environment.update({key: expand(value, variables) for key, value in assignments(step)})
        elif step.name == "ARG":
            arguments.update({key: self.build_arguments.get(key, value) for key, value in assignments(step)})
        elif step.name == "WORKDIR":
            environment["PWD"] = step.rest
            _inside(root, step.rest).mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            self._copy(step, root)
        elif step.name == "RUN" and PRIVILEGED.search(step.rest):
            _stand_in_for(step.rest, root)
        elif step.name == "RUN":
            print(f"RUN {step.rest}", flush=True)
            enter(root, ["/bin/sh", "-c", step.rest], variables)

    def _copy(self, step: Instruction, root: Path) -> None:
        *sources, target = step.words
        origin = step.flags.get("from")
        if origin is not None:
            self.stage(origin)
        for source in sources:
            start = ROOT / source if origin is None else _inside(self.root(origin), source)
            ignored = _ignored_by_docker if origin is None else None
            copy = shutil.copy2 if origin is None else os.link
            shutil.copytree(
                start, _inside(root, target), symlinks=True, ignore=ignored, copy_function=copy, dirs_exist_ok=True
            )


def enter(root: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `command` with `root` as its file system and `environment` as all of its environment; exits if it fails."""
    shown = [path for path in (*SYSTEM, sys.base_prefix, *_local_pip_sources()) if Path(path).exists()]
    script = ["set -e"]
    for path in shown:
        place = _inside(root, path)
        place.mkdir(parents=True, exist_ok=True)
        script.append(f"mount --rbind '{path}' '{place}'")
        if path in ("/usr", "/etc", sys.base_prefix):
            script.append(f"mount -o remount,bind,ro '{place}'")
    script.append(f'cd "{root}" && exec chroot . /usr/bin/env -i -C "$FOREBAY_WORKDIR" "$@"')
    pairs = [f"{key}={value}" for key, value in {**_from_caller(), **environment}.items()]
    call = ["unshare", "--map-root-user", "--mount", "sh", "-c", "\n".join(script), "enter", *pairs, *command]
    done = subprocess.run(call, env={**os.environ, "FOREBAY_WORKDIR": environment.get("PWD", "/")}, check=False)
    if done.returncode != 0:
        sys.exit(f"`{' '.join(command)}` ended with exit code {done.returncode}")


def _base_image(root: Path) -> dict[str, str]:
    """What python:3-slim has: a root with /tmp and links, and `python` on the path."""
    for name in ("tmp", "root", "var", "opt", "python/bin"):
        (root / name).mkdir(parents=True)
    for link in filter(lambda path: Path(path).is_symlink(), LINKS):
        (root / link[1:]).symlink_to(os.readlink(link))
    executable = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python", "python3"):
        (root / "python" / "bin" / name).symlink_to(executable)
    return {"PATH": "/python/bin:/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", "PWD": "/"}


def _from_caller() -> dict[str, str]:
    """pip's configuration as variables (its user file is not in the build), proxies and certificates."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings = re.findall(r"^(?:global|install)\.([\w-]+)='(.*)'$", listing, re.MULTILINE)
    configured = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings}
    return configured | {name: value for name, value in os.environ.items() if PROXIES.fullmatch(name)}


def _local_pip_sources() -> list[str]:
    """Directories that pip's configuration names: find-links, and the parents of file: indexes: they name siblings."""
    words = [word for value in _from_caller().values() for word in value.split()]
    places = [str(Path(word[7:]).parent) if word.startswith("file://") else word for word in words]
    return [
        place
        for place in dict.fromkeys(places)
        if Path(place).is_absolute() and Path(place).is_dir() and not place.startswith(SYSTEM)
    ]


def _stand_in_for(command: str, root: Path) -> None:
    """Of a step that needs a real root: look the packages up, make the directories of `install -d`, without owners."""
    commands = [part.split() for part in command.split("&&")]
    packages = [word for part in commands if part[:2] == ["apt-get", "install"] for word in part[2:] if word[0] != "-"]
    print(f"RUN (not run) apt-get and useradd; packages: {', '.join(packages)}", flush=True)
    for name in packages:
        if subprocess.run(["dpkg-query", "--show", name], capture_output=True, check=False).returncode != 0:
            print(f"  {name} is not installed here: the steps that follow do without it", flush=True)
    for path in [word for part in commands if part[:2] == ["install", "-d"] for word in part if word[0] == "/"]:
        _inside(root, path).mkdir(parents=True, exist_ok=True)


def _ignored_by_docker(folder: str, names: list[str]) -> set[str]:
    """.dockerignore in the form that ours has: everything is out, but what a `!` line names or what lies below it."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    base = Path(folder).resolve().relative_to(ROOT)

    def wanted(name: str) -> bool:
        path = str(base / name)
        return name != "__pycache__" and any(fnmatch(path, rule) or path.startswith(f"{rule}/") for rule in kept)

    return {name for name in names if not wanted(name)}


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description="Carry out one target of the Dockerfile without a container engine.")
    parser.add_argument("--target", required=True)
    parser.add_argument("--into", required=True, type=Path, help="a directory that does not exist yet")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for COMMAND")
    parser.add_argument("command", nargs="*", help="run in the result; without it the target's ENTRYPOINT is not run")
    arguments = parser.parse_args()
    build = Build(
        parse(ROOT / "Dockerfile"), arguments.into.resolve(), dict(pair.split("=", 1) for pair in arguments.build_arg)
    )
    build.stage(arguments.target)
    if arguments.command:
        environment = build.environments[arguments.target] | dict(pair.split("=", 1) for pair in arguments.env)
        enter(build.root(arguments.target), arguments.command, environment)


if __name__ == "__main__":
    main()
