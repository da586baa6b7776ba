"""Peers of `bench compare --peer`: how they are started and asked, and what is said where that cannot be."""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from forebay.bench.client import Target
from forebay.bench.peers import PEERS, check_installed, command_of, engine_of, plan_for
from forebay.bench.plan import Plan, Step
from forebay.bench.process import child_environment, free_port, running
from forebay.engines.machine import Machine
from forebay.engines.model_source import ModelSource
from forebay.errors import ConfigurationError
from support.command import forebay

SOURCE = ModelSource("/models/demo", "demo", None, local=True)
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
ON_CPU, ON_GPU = Machine(vllm="cpu"), Machine(vllm="cuda", cuda="a GPU")
PLAN = Plan(Target("http://127.0.0.1:1"), [Step(4)], ignore_eos=True, extra_body={"temperature": 0})


@pytest.mark.parametrize("peer", PEERS)
def test_the_command_can_be_typed(peer: str) -> None:
    """Each peer's command loads the model from where it is, on loopback, without the network."""
    said = str(command_of(peer, SOURCE, 8001, 512, ON_CPU))
    assert "HF_HUB_OFFLINE=1 " in said
    assert " serve /models/demo " in said or " --model /models/demo " in said
    assert "--host 127.0.0.1 --port 8001" in said
    assert ("--continuous-batching" in said) == (peer == "transformers-continuous")
    assert ("--kv-cache-memory-bytes 536870912" in said) == (engine_of(peer) == "vllm")
    assert ("VLLM_CPU_OMP_THREADS_BIND=" in said) == (peer == "vllm-same-threads")


def test_on_a_gpu_vllm_is_started_by_its_command_line() -> None:
    """`vllm serve MODEL`, by this Python; threads of a CPU are refused there."""
    assert "-m vllm.entrypoints.cli.main serve /models/demo" in str(command_of("vllm", SOURCE, 1, 512, ON_GPU))
    with pytest.raises(ConfigurationError, match="on a CPU"):
        command_of("vllm-same-threads", SOURCE, 1, 512, ON_GPU)


@pytest.mark.skipif(not all(map(importlib.util.find_spec, ("vllm", "transformers"))), reason="peers are not installed")
@pytest.mark.parametrize(("peer", "module"), [("vllm", 1), ("transformers", 0)])
def test_the_modules_that_are_started_exist(peer: str, module: int) -> None:
    """The installed version has them still."""
    words = command_of(peer, SOURCE, 1, 512, ON_CPU).words
    package, *rest = words[words.index("-m") + 1].split(".")
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.origin is not None
    assert Path(found.origin).parent.joinpath(*rest).with_suffix(".py").is_file()


def test_a_peer_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    with pytest.raises(ConfigurationError, match="vLLM is not installed here: `make serve ENGINE=vllm`"):
        check_installed("vllm", Machine())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openai" else object())
    with pytest.raises(ConfigurationError, match=r"lacks openai: pip install 'transformers\[serving\]'"):
        check_installed("transformers", Machine())


def test_each_is_asked_in_words_that_it_understands() -> None:
    """`transformers serve` refuses unknown fields: answers of full length are asked for in its own way."""
    assert plan_for("vllm", PLAN) is PLAN
    plan = plan_for("transformers-continuous", PLAN)
    assert not plan.ignore_eos
    assert plan.extra_body["temperature"] == 0
    assert '"eos_token_id":-1' in plan.extra_body["generation_config"]


def test_two_servers_or_a_peer(tmp_path: Path) -> None:
    """One of them, not both and not half."""
    for words in (["--peer", "vllm", "http://127.0.0.1:1"], ["http://127.0.0.1:1"], []):
        ran = forebay("bench", "compare", *words, data_dir=tmp_path)
        assert ran.returncode == 2
        assert "Compare A and B, or give --peer." in ran.stderr


def test_a_program_that_ends_at_once_is_quoted(tmp_path: Path) -> None:
    """The end of what it wrote says why."""
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    url = f"http://127.0.0.1:{free_port()}/health"
    with (
        pytest.raises(ConfigurationError, match="no such model"),
        running(command, child_environment({}), url, tmp_path / "log", 30.0),
    ):
        raise AssertionError("it is not ready")


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    """A server that leaves a process behind, as one does that is killed, leaves none."""
    port = free_port()
    script = (
        "import http.server as h, subprocess, sys;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)']);"
        f"h.test(h.SimpleHTTPRequestHandler, port={port}, bind='127.0.0.1')"
    )
    command = [sys.executable, "-c", script]
    with running(command, child_environment({}), f"http://127.0.0.1:{port}/", tmp_path / "log", 30.0) as process:
        (child,) = psutil.Process(process.pid).children()
    assert process.poll() is not None
    deadline = time.monotonic() + 5
    while child.is_running() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not child.is_running()


def test_a_free_port_stays_free_until_it_is_used() -> None:
    """The system gives it to no connection, we give it once, and what somebody has bound is passed over."""
    given = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", given + 1))
        after = [free_port() for _ in range(10)]
    assert given + 1 not in after
    assert len(set(after)) == 10
    assert max(after) < min(int(word) for word in EPHEMERAL.read_text().split())
