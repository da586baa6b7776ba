"""The end of the process, from outside: signals, streams that are open, exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.server import SERVER_ROOT, ServerProcess
from support.wire import post

MakeServer = Callable[..., ServerProcess]
SCRIPTED = ("--engine", "scripted")
FAST_EXIT_S = 3.0


def body(*, num_words: int, delay_ms: int, stream: bool = True, **metadata: str) -> dict[str, Any]:
    script = " ".join(["word"] * num_words)
    return {
        "model": "scripted",
        "messages": [{"role": "user", "content": "go"}],
        "max_completion_tokens": 4 * num_words,
        "stream": stream,
        "metadata": {"forebay_script": script, "forebay_inter_token_ms": str(delay_ms), **metadata},
    }


class Stream:
    """One open stream: its frames as they come."""

    def __init__(self, client: httpx.AsyncClient, request: dict[str, Any]) -> None:
        self.frames: list[str] = []
        self.first = asyncio.Event()
        self.task = asyncio.create_task(self._read(client, request))

    async def _read(self, client: httpx.AsyncClient, request: dict[str, Any]) -> None:
        async with client.stream("POST", "/v1/chat/completions", json=request) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self.frames.append(line.removeprefix("data: "))
                    self.first.set()

    @property
    def text(self) -> str:
        chunks = [json.loads(frame) for frame in self.frames if frame != "[DONE]"]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.frames[-2])["error"])


def client(server: ServerProcess) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=60)


def events(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_loses_no_stream(make_server: MakeServer, number: signal.Signals) -> None:
    """Open streams run to their last token; then the process ends with 0."""
    server = make_server(*SCRIPTED)
    async with client(server) as http:
        streams = [Stream(http, body(num_words=40, delay_ms=15)) for _ in range(8)]
        for stream in streams:
            await stream.first.wait()
        server.signal(number)
        await asyncio.gather(*(stream.task for stream in streams))
    for stream in streams:
        assert stream.text == " ".join(["word"] * 40)
        assert stream.frames[-1] == "[DONE]"
    assert await asyncio.to_thread(server.wait, FAST_EXIT_S) == 0


async def test_a_draining_server_refuses_new_work_and_says_so(make_server: MakeServer) -> None:
    """On open and on new connections: 503 `shutting_down`, Retry-After, Connection: close. Not ready, but alive.

    Those who watch see it drain, and what it waits for: the stream, not themselves.
    """
    server = make_server(*SCRIPTED)
    new = body(num_words=1, delay_ms=0, stream=False)
    async with client(server) as http, client(server) as other, client(server) as fresh:
        await other.get("/live")
        stream = Stream(http, body(num_words=60, delay_ms=20))
        await stream.first.wait()
        server.signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        for connection in (other, fresh):
            refused = await connection.post("/v1/chat/completions", json=new)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["connection"] == "close"
        assert (await fresh.get("/ready")).status_code == 503
        assert (await fresh.get("/live")).status_code == 200
        metrics = await fresh.get("/metrics")
        assert metrics.status_code == 200
        assert "\nforebay_draining 1.0\n" in metrics.text
        refusals = 'forebay_requests_total{outcome="refused",route="/v1/chat/completions",status="503"} 2.0'
        assert f"\n{refusals}\n" in metrics.text
        assert "\nforebay_requests_in_flight 1.0\n" in metrics.text
        stats = (await fresh.get("/stats")).json()
        assert (stats["draining"], stats["requests"]["in_flight"]) == (True, 1)
        health = await fresh.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "draining")
        await stream.task
    assert stream.frames[-1] == "[DONE]"
    assert await asyncio.to_thread(server.wait, FAST_EXIT_S) == 0


async def test_streams_beyond_the_drain_limit_get_an_error_frame(make_server: MakeServer) -> None:
    """When the limit passes every stream ends with an error frame and [DONE]; the exit code stays 0."""
    server = make_server(*SCRIPTED, "--drain-timeout-s", "0.5")
    async with client(server) as http:
        stream = Stream(http, body(num_words=2000, delay_ms=50))
        await stream.first.wait()
        server.signal(signal.SIGTERM)
        await stream.task
    assert stream.error["code"] == "shutting_down"
    assert stream.frames[-1] == "[DONE]"
    assert await asyncio.to_thread(server.wait, FAST_EXIT_S) == 0


async def test_an_unstreamed_answer_beyond_the_limit_is_a_503(make_server: MakeServer) -> None:
    """A request that waits for its whole answer is told, with its status still free to choose."""
    server = make_server(*SCRIPTED, "--drain-timeout-s", "0.5")
    async with client(server) as http:
        answer = asyncio.create_task(
            http.post("/v1/chat/completions", json=body(num_words=2000, delay_ms=50, stream=False))
        )
        await asyncio.sleep(0.5)
        server.signal(signal.SIGTERM)
        refused = await answer
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert await asyncio.to_thread(server.wait, FAST_EXIT_S) == 0


async def test_a_second_signal_is_fast(make_server: MakeServer) -> None:
    """It ends what is open, with an error frame, without waiting for the limit."""
    server = make_server(*SCRIPTED, "--drain-timeout-s", "60")
    async with client(server) as http:
        stream = Stream(http, body(num_words=2000, delay_ms=50))
        await stream.first.wait()
        server.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert not stream.task.done()
        server.signal(signal.SIGTERM)
        began = time.monotonic()
        await stream.task
        assert await asyncio.to_thread(server.wait, FAST_EXIT_S) == 0
        assert time.monotonic() - began < FAST_EXIT_S
    assert stream.error["code"] == "shutting_down"
    assert stream.frames[-1] == "[DONE]"


async def test_a_stream_that_begins_in_the_drain_says_that_its_connection_ends(make_server: MakeServer) -> None:
    """In its one Connection header: a client that reads only the first is not told to keep it."""
    server = make_server(*SCRIPTED)
    async with client(server) as http:
        late = body(num_words=1, delay_ms=1, forebay_first_token_ms="600")
        answering = asyncio.create_task(http.post("/v1/chat/completions", json=late))
        await asyncio.sleep(0.2)
        server.signal(signal.SIGTERM)
        answer = await answering
    assert answer.headers.get_list("connection") == ["close"]
    assert answer.text.endswith("data: [DONE]\n\n")
    assert await asyncio.to_thread(server.wait, 10) == 0


def test_idle_and_stuck_connections_do_not_hold_the_process(make_server: MakeServer) -> None:
    """Neither an idle keep-alive connection nor half a request head delays the end."""
    server = make_server(*SCRIPTED, "--drain-timeout-s", "60")
    with httpx.Client(base_url=server.url) as http, socket.create_connection((server.host, server.port)) as half:
        http.get("/live")
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.1)
        server.signal(signal.SIGTERM)
        assert server.wait(FAST_EXIT_S) == 0


def test_a_client_that_does_not_read_is_left_behind(make_server: MakeServer) -> None:
    """A stream whose client stopped reading ends with the drain's limit, not with the client."""
    server = make_server(*SCRIPTED, "--drain-timeout-s", "0.5")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect((server.host, server.port))
        deaf.sendall(post("/v1/chat/completions", body(num_words=8000, delay_ms=0)))
        time.sleep(0.5)
        server.signal(signal.SIGTERM)
        assert server.wait(0.5 + 2 * FAST_EXIT_S) == 0


async def test_a_dead_engine_ends_the_process_non_zero(make_server: MakeServer) -> None:
    """Its waiters get an error frame and [DONE], readiness goes, the process ends with 70 and a reason in the log."""
    server = make_server(*SCRIPTED, "--engine-restarts", "0")
    async with client(server) as http:
        stream = Stream(http, body(num_words=200, delay_ms=10, forebay_fail="die@3"))
        await stream.task
    assert stream.error["code"] == "engine_unavailable"
    assert stream.frames[-1] == "[DONE]"
    assert await asyncio.to_thread(server.wait, 10) == 70
    assert [event["reason"] for event in events(server) if event["event"] == "service_lost"]


def test_a_model_that_cannot_be_loaded_ends_the_process_with_a_sentence(
    make_server: MakeServer, tmp_path: Path
) -> None:
    """Found only when the engine loads, after the port was bound: exit code 2; the operator reads what to change."""
    server = make_server(
        "--engine", "transformers", "--model", str(tmp_path / "missing"), "--device", "cpu", ready_timeout_s=None
    )
    assert server.wait(60) == 2
    assert "Traceback" not in server.log
    assert "missing" in server.log.splitlines()[-1]


STUCK = """
import asyncio, sys, time
from forebay.app import create_app
from forebay.engines.scripted import ScriptedEngine
from forebay.observe.logs import configure_logging
from forebay.services import build_services
from forebay.serving import Server
from forebay.settings import Settings
from forebay.sockets import bind_socket

class Stuck(ScriptedEngine):
    async def close(self, timeout_s):
        time.sleep(600)

settings = Settings(engine="scripted", port=0, log_format="json")
configure_logging(settings)
services = build_services(settings, engine=lambda: Stuck(settings))
sock = bind_socket(settings)
server = Server(create_app(settings, services), services, sock, None, lambda listening: print("up", flush=True))
asyncio.run(server.serve(sockets=[sock]))
"""


def test_an_engine_that_does_not_close_is_left_behind() -> None:
    """Even one that blocks the event loop: after a second signal the process is gone in seconds, children and all."""
    with subprocess.Popen(
        [sys.executable, "-c", STUCK],
        env={**os.environ, "PYTHONPATH": str(SERVER_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(2 + FAST_EXIT_S) == 0
        assert b"stop_overdue" in process.stderr.read()
