"""`forebay` from the command line: flags, refusals in sentences, what is printed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from forebay import __version__
from forebay.settings import Settings
from support.server import SERVER_ROOT, ServerProcess

FREE_PORTS = {"FOREBAY_PORT": "0", "FOREBAY_ADMIN_PORT": "0"}
READ_FROM_ELSEWHERE = {"local_model_path", "model_name", "xdg_cache_home", "xdg_data_home"}
"""Variables of other programs, read for what they mean there; they have no flag."""


def forebay(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FOREBAY_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "forebay", *args],
        env={**inherited, "PYTHONPATH": str(SERVER_ROOT), "COLUMNS": "200", **FREE_PORTS, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_setting_has_a_flag_with_help() -> None:
    """A setting that is added to Settings gets its flag by itself."""
    shown = forebay("serve", "--help").stdout
    for name, field in Settings.model_fields.items():
        if name in READ_FROM_ELSEWHERE:
            continue
        assert f"--{name.replace('_', '-')}" in shown
        assert f"FOREBAY_{name.upper()}" in shown
        assert field.description


def test_version_needs_no_model_library() -> None:
    """`forebay version` names versions without importing what they are of."""
    result = forebay("version")
    assert result.returncode == 0
    assert result.stdout.startswith(f"forebay {__version__}\n")


def test_serving_the_scripted_engine_imports_no_model_library(server: ServerProcess) -> None:
    """It runs on the base installation: no torch, no transformers, no vllm in the process."""
    assert server.process is not None
    mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libpython" in mapped or "python" in mapped
    assert not re.search(r"/site-packages/(torch|transformers|vllm|tokenizers|numpy)/", mapped)


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        (("--port", "abc"), {}, "FOREBAY_PORT or --port:"),
        ((), {"FOREBAY_MAX_NUM_SEQS": "0"}, "FOREBAY_MAX_NUM_SEQS or --max-num-seqs:"),
        ((), {"FOREBAY_ENGINE": "llama"}, "FOREBAY_ENGINE or --engine:"),
        (("--host", "0.0.0.0"), {}, "without a key"),
        (("--host", "203.0.113.1", "--insecure-open"), {}, "203.0.113.1"),
        (("--host", "no.such.host.invalid", "--insecure-open"), {}, "no.such.host.invalid"),
        (("--api-keys-file", "/no/such/file"), {}, "/no/such/file"),
        (("--host", "0.0.0.0", "--api-keys-file", "/no/such/file"), {}, "/no/such/file"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(args: tuple[str, ...], env: dict[str, str], said: str) -> None:
    """Exit code 2, one line that names the setting, no traceback."""
    result = (
        forebay("serve", "--engine", "scripted", *args, **env)
        if "FOREBAY_ENGINE" not in env
        else forebay("serve", **env)
    )
    assert result.returncode == 2
    refusal = [line for line in result.stderr.splitlines() if line.startswith("forebay: ")]
    assert len(refusal) == 1
    assert said in refusal[0]
    assert "Traceback" not in result.stderr


def test_refusals_never_show_a_secret() -> None:
    """A key that is refused is not echoed, by flag or by variable."""
    secret = "canary secret with spaces"
    for result in (
        forebay("serve", "--engine", "scripted", "--api-keys", secret),
        forebay("serve", "--engine", "scripted", FOREBAY_API_KEYS=secret),
    ):
        assert result.returncode == 2
        assert "canary" not in result.stderr + result.stdout


def test_a_flag_is_refused_where_it_is_unknown() -> None:
    """A misspelt flag is an error, not ignored."""
    result = forebay("serve", "--prot", "1")
    assert result.returncode == 2
    assert "--prot" in result.stderr


def test_flags_override_the_environment(make_server: Callable[..., ServerProcess]) -> None:
    """And both override defaults; `--served-model-name` is understood as elsewhere. Misspelt variables are named."""
    server = make_server(
        "--engine",
        "scripted",
        "--served-model-name",
        "flag",
        "--max-num-seqs",
        "3",
        FOREBAY_SERVED_MODEL_NAMES="variable",
        FOREBAY_MAX_CHOICES="5",
        FOREBAY_MAX_CHOISES="6",
    )
    info = httpx.get(f"{server.url}/model/info").json()
    assert info["names"] == ["flag"]
    assert info["limits"]["max_num_seqs"] == 3
    assert info["limits"]["max_choices"] == 5
    assert '"event":"unknown_variable","name":"FOREBAY_MAX_CHOISES"' in server.log


def test_a_port_in_use_is_said(server: ServerProcess) -> None:
    """The sentence names the port."""
    result = forebay("serve", "--engine", "scripted", "--port", str(server.port))
    assert result.returncode == 2
    assert f"Port {server.port}" in result.stderr
    assert "in use" in result.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_the_banner_holds_a_curl_line_that_works(host: str) -> None:
    """With port 0 the banner names the real port; its curl line, copied into a shell, is answered by the model."""
    if host == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    process = subprocess.Popen(
        [sys.executable, "-m", "forebay", "serve", "--engine", "scripted", "--port", "0", "--host", host],
        env={**os.environ, "PYTHONPATH": str(SERVER_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("  curl ")):
            lines.append(process.stdout.readline())
            assert lines[-1], "the server ended without a banner"
        banner = "".join(lines)
        assert "scripted" in banner
        assert re.search(r"http://\S+:[1-9]\d*/v1", banner)
        answer = subprocess.run(
            ["bash", "-c", lines[-1].replace("curl ", "curl -s ", 1)], capture_output=True, text=True, timeout=30
        )
        assert '"chat.completion"' in answer.stdout
    finally:
        process.terminate()
        assert process.wait(15) == 0
        process.stdout.close()


def test_the_banner_comes_at_once_when_loading_lazily(make_server: Callable[..., ServerProcess]) -> None:
    """`--lazy-load` listens without a model; /health says that none is loaded, and the first request loads it."""
    server = make_server("--engine", "scripted", "--lazy-load", ready_timeout_s=None)
    wait_for(lambda: "curl " in server.log)
    health = httpx.get(f"{server.url}/health")
    assert (health.status_code, health.json()["status"], health.json()["model_loaded"]) == (200, "unloaded", False)
    assert httpx.get(f"{server.url}/ready").status_code == 503
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", json={"model": "scripted", "messages": [{"role": "user", "content": "x"}]}
    )
    assert answer.status_code == 200
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def wait_for(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
