"""A client whose machine is gone: no FIN, no RST, nothing. It is in a network of its own, whose cable is pulled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proofs.conftest import Proof
from support.ledger import LedgerFile
from support.server import ServerProcess
from support.witness import Witness

KEY = "a-key-for-a-network-of-its-own"
SPACE, OURS, THEIRS = f"forebay-{os.getpid()}", f"fbo{os.getpid() % 10**9}", f"fbt{os.getpid() % 10**9}"
HERE, THERE = "10.77.13.1", "10.77.13.2"
KEEPALIVE_S, USER_TIMEOUT_S = 2, 6

CLIENT = f"""
import json, socket, sys
port, first_ms = int(sys.argv[1]), sys.argv[2]
body = json.dumps({{
    "messages": [{{"role": "user", "content": "go"}}], "max_tokens": 4000, "ignore_eos": True, "stream": True,
    "metadata": {{"forebay_inter_token_ms": "5", "forebay_first_token_ms": first_ms}},
}})
with socket.create_connection(("{HERE}", port)) as sock:
    head = "POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer {KEY}\\r\\n"
    head += f"Content-Type: application/json\\r\\nContent-Length: {{len(body)}}\\r\\n\\r\\n"
    sock.sendall((head + body).encode())
    print("asked", flush=True)
    while sock.recv(65536):
        pass
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[None]:
    """Two machines and a cable."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("a network of one's own takes root and iproute2")
    ip("netns", "add", SPACE)
    try:
        ip("link", "add", OURS, "type", "veth", "peer", "name", THEIRS, "netns", SPACE)
        ip("addr", "add", f"{HERE}/24", "dev", OURS)
        ip("link", "set", OURS, "up")
        ip("-n", SPACE, "addr", "add", f"{THERE}/24", "dev", THEIRS)
        ip("-n", SPACE, "link", "set", THEIRS, "up")
        yield
        ip("link", "del", OURS)
    finally:
        ip("netns", "del", SPACE)


@pytest.mark.parametrize("stage", ["streaming", "waiting for the first token"])
def test_a_peer_that_vanished_is_settled_within_the_keepalive_setting(
    tmp_path: Path, network: None, stage: str, proof: Proof
) -> None:
    """Billed what was generated until then, and the engine is free again."""
    env = {
        "FOREBAY_SCRIPTED_JOURNAL": str(tmp_path / "journal"),
        "FOREBAY_API_KEYS": KEY,
        "FOREBAY_OPEN_DOCS": "true",
        "FOREBAY_TCP_KEEPALIVE_S": str(KEEPALIVE_S),
        "FOREBAY_TCP_USER_TIMEOUT_S": str(USER_TIMEOUT_S),
    }
    server = ServerProcess(tmp_path / "log", ["--engine", "scripted", "--host", HERE], env, host=HERE).start()
    first_ms = "0" if stage == "streaming" else "60000"
    try:
        with closing(Witness(server)) as witness:
            client = subprocess.Popen(
                ["ip", "netns", "exec", SPACE, sys.executable, "-c", CLIENT, str(server.port), first_ms],
                stdout=subprocess.PIPE,
            )
            assert client.stdout is not None
            assert client.stdout.readline() == b"asked\n"
            request_id = witness.newest(set())
            witness.wait_for(request_id, "start")
            if stage == "streaming":
                witness.wait_for(request_id, "tokens", count=50)
            ip("-n", SPACE, "link", "set", THEIRS, "down")
            gone_at = time.monotonic()
            witness.wait_for(request_id, "abort", timeout_s=60)
            took_s = time.monotonic() - gone_at
            row = LedgerFile(server.data_dir).settled(request_id)
            client.kill()
            client.wait()
            client.stdout.close()
            assert row["outcome"] == "client_gone"
            assert row["completion_tokens"] == witness.num_generated(request_id)
    finally:
        server.stop()
    limit_s = KEEPALIVE_S + USER_TIMEOUT_S + 5
    assert took_s <= limit_s
    proof(
        f"vanished-{'streaming' if stage == 'streaming' else 'waiting'}",
        f"A peer that vanishes without a word, {stage}, is settled once the kernel's timers say so.",
        keepalive_s=KEEPALIVE_S,
        user_timeout_s=USER_TIMEOUT_S,
        settled_after_s=took_s,
        billed=row["completion_tokens"],
        generated=row["completion_tokens"],
    )
