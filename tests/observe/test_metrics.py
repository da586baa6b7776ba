"""GET /metrics: parses, follows Prometheus' naming rules, counts what was served, bounds its labels."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from forebay.drain import Drain
from forebay.engines.base import EngineHealth, EngineLoad
from forebay.observe.metrics import Metrics
from forebay.observe.system import SystemMonitor
from support.server import SERVER_ROOT, ServerProcess

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 9}
UNITS = {"seconds", "bytes", "ratio", "total", "info"}
BOUNDED_LABELS = {"route", "status", "outcome", "code", "kind", "process", "state", "gpu", "name", "le"}
BUILD_LABELS = {"version", "engine", "model"}

FAKE_NVML = """
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
class Use:
    gpu, used, total = 37, 5 << 30, 80 << 30
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(handle): return b"Fake GPU"
def nvmlDeviceGetMemoryInfo(handle): return Use
def nvmlDeviceGetUtilizationRates(handle):
    if handle == 1:
        raise NVMLError_NotSupported
    return Use
"""


def scrape(server: ServerProcess, **headers: str) -> dict[str, Metric]:
    answer = httpx.get(f"{server.url}/metrics", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    named = {family.name: family for family in families}
    assert len(named) == len(families), "a family is given twice"
    return named


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    for family in families.values():
        for found in family.samples:
            if found.name == sample and found.labels == labels:
                return found.value
    return 0.0


def test_names_follow_the_rules(server: ServerProcess) -> None:
    """What promtool's linter asks: help, base units, `_total` on counters and only there, no unbounded label."""
    for name, family in scrape(server).items():
        assert name.startswith("forebay_")
        assert re.fullmatch(r"[a-z_]+", name)
        assert family.documentation.endswith("."), name
        assert not re.search(r"_(milliseconds|ms|minutes|percent|kb|mb|count|sum|bucket)$", name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
            allowed = BUILD_LABELS if name == "forebay_build_info" else BOUNDED_LABELS
            assert set(sample.labels) <= allowed, sample.labels
        if family.type == "histogram":
            assert name.endswith("_seconds")


def test_histograms_are_cumulative_and_complete(server: ServerProcess) -> None:
    """Buckets never fall, end in +Inf, and agree with the count."""
    httpx.post(f"{server.base_url}/chat/completions", json=CHAT)
    seen = 0
    for family in scrape(server).values():
        if family.type != "histogram":
            continue
        series: dict[str, list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                series.setdefault(sample.labels.get("route", ""), []).append((float(sample.labels["le"]), sample.value))
        for buckets in series.values():
            seen += 1
            assert buckets == sorted(buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1][0] == float("inf")
    assert seen >= 6


def test_a_request_moves_what_it_should(make_server: Callable[..., ServerProcess]) -> None:
    """Requests, tokens by kind, latencies, errors by code: exactly as many as were served."""
    server = make_server("--engine", "scripted")
    usage = [httpx.post(f"{server.base_url}/chat/completions", json=CHAT).json()["usage"] for _ in range(3)]
    assert httpx.post(f"{server.base_url}/chat/completions", json={**CHAT, "messages": []}).status_code == 400
    assert httpx.get(f"{server.url}/no/such/route").status_code == 404
    families = scrape(server)
    route = "/v1/chat/completions"
    assert value(families, "forebay_requests_total", route=route, status="200", outcome="ok") == 3
    assert value(families, "forebay_requests_total", route=route, status="400", outcome="refused") == 1
    assert value(families, "forebay_requests_total", route="unmatched", status="404", outcome="refused") == 1
    assert value(families, "forebay_request_errors_total", code="invalid_value") == 1
    for kind in ("prompt", "completion"):
        assert value(families, "forebay_tokens_total", kind=kind) == sum(each[f"{kind}_tokens"] for each in usage)
    assert value(families, "forebay_time_to_first_token_seconds_count") == 3
    assert value(families, "forebay_request_duration_seconds_count", route=route) == 4
    assert value(families, "forebay_engine_generated_tokens_total") >= sum(each["completion_tokens"] for each in usage)
    assert value(families, "forebay_engine_up") == 1
    assert value(families, "forebay_engine_state", state="ready") == 1
    assert value(families, "forebay_draining") == 0
    assert value(families, "forebay_process_resident_memory_bytes", process="server") > 10_000_000
    assert value(families, "forebay_process_cpu_seconds_total", process="server") > 0


def test_paths_that_clients_invent_make_no_series(server: ServerProcess) -> None:
    """A scanner's thousand paths, methods and model names are a handful of series."""
    with httpx.Client(base_url=server.url) as http:
        before = len(http.get("/metrics").text.splitlines())
        for number in range(30):
            http.get(f"/scan/{number}")
            http.get(f"/v1/models/scan-{number}")
            http.request(f"SCAN{number}", "/v1/models")
            http.post("/v1/chat/completions", json={**CHAT, "model": f"scan-{number}"})
        text = http.get("/metrics").text
    assert "scan" not in text.lower()
    assert len(text.splitlines()) - before < 150


async def test_the_engine_is_read_on_the_event_loop() -> None:
    """Engines belong to it: read from a scrape's thread, what they count may change under the reader."""
    threads: set[int] = set()

    class Engine:
        state, num_restarts, current, info = "ready", 0, None, None

        def health(self) -> EngineHealth:
            threads.add(threading.get_ident())
            return EngineHealth(alive=True)

        def load(self) -> EngineLoad:
            threads.add(threading.get_ident())
            return EngineLoad(3, 2, 0.5, 10, 20)

    class Queue:
        num_waiting = 4

    text = (await Metrics(Engine(), Queue(), Drain(), SystemMonitor()).render()).decode()
    assert "forebay_engine_running_sequences 3.0\n" in text
    assert "forebay_engine_waiting_sequences 6.0\n" in text
    assert threads == {threading.get_ident()}


def test_gpus_are_reported_where_nvml_is(make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """Use and memory of each; a device that does not report its use (a MIG slice) still reports its memory."""
    (tmp_path / "pynvml.py").write_text(FAKE_NVML)
    server = make_server("--engine", "scripted", PYTHONPATH=f"{SERVER_ROOT}{os.pathsep}{tmp_path}")
    families = scrape(server)
    for gpu, busy in (("0", 0.37), ("1", 0.0)):
        labels = {"gpu": gpu, "name": "Fake GPU"}
        assert value(families, "forebay_gpu_busy_ratio", **labels) == pytest.approx(busy)
        assert value(families, "forebay_gpu_memory_used_bytes", **labels) == 5 << 30
        assert value(families, "forebay_gpu_memory_total_bytes", **labels) == 80 << 30
    assert [gpu["busy_percent"] for gpu in httpx.get(f"{server.url}/stats").json()["gpus"]] == [37.0, 0.0]
