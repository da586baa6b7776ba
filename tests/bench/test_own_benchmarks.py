"""Benchmarks that start the server themselves, at a scale at which their figures say nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from doc_tables import benchmark_table
from forebay.bench.frontend import SCRIPTED, WHOLE, measure
from forebay.bench.outcome import Outcome
from forebay.bench.own_server import accounting_server
from forebay.bench.short import run_short
from forebay.bench.soak import Seen, drift, slope
from forebay.errors import ConfigurationError
from support.command import forebay
from support.server import SERVER_ROOT


def test_a_short_soak_ends_with_books_that_are_right(tmp_path: Path) -> None:
    """Some clients leave, nothing fails, the ledger is whole, and every token received was settled."""
    ran = forebay("bench", "soak", "--minutes", "0.04", "--rate", "60", data_dir=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["soak"]
    assert found["completed"] > 50
    assert found["left"] > 0
    assert found["ledger"].endswith("whole.")
    assert found["settled_tokens"] >= found["output_tokens"] > 0


def test_a_benchmark_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    """SIGKILL lets it stop nothing: the kernel tells its server."""
    words = [sys.executable, "-m", "forebay", "bench", "soak", "--minutes", "5"]
    env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        assert bench.stderr.readline().startswith("0 s:")
        (server,) = psutil.Process(bench.pid).children()
        bench.kill()
    server.wait(20)


def test_a_round_whose_requests_fail_has_no_figures() -> None:
    """The first answer that was no answer says why, in the server's words."""
    with accounting_server(*SCRIPTED) as server, pytest.raises(ConfigurationError, match=r"'status_401': 4.*API key"):
        measure(WHOLE, replace(server, key="wrong"), 4, seed=0)


def test_growth_is_the_median_of_slopes() -> None:
    """One jump does not make a leak; a steady line is one, whatever a few samples say."""
    assert slope([(second, 5.0) for second in range(20)] + [(20.0, 500.0)]) == 0
    leaking = [(second, 2.0 * second) for second in range(30)]
    assert slope([*leaking, (30.0, 0.0)]) == pytest.approx(2)
    assert slope([(1.0, 1.0)]) == 0


def test_drift_compares_the_second_quarter_with_the_last() -> None:
    """The first quarter, which warms up, is in neither."""
    seen = Seen(samples=[(float(second), 100 * 2**20, 9) for second in range(101)])
    for second, ttft_s in ((10, 9.0), (30, 0.1), (40, 0.1), (80, 0.2), (90, 0.2)):
        seen.outcomes.append(Outcome(float(second), ttft_s=ttft_s, output_tokens=1, status=200))
    seen.outcomes.append(Outcome(95.0, failure="reset"))
    found = drift(seen, 100.0)
    assert found["early"]["ttft_p50_ms"] == pytest.approx(100)
    assert found["late"]["ttft_p99_ms"] == pytest.approx(200)
    assert (found["completed"], found["error_counts"], found["rss_growth_mib_per_hour"]) == (5, {"reset": 1}, 0)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(JSON, HTML) of `bench short` with the scripted engine as the model."""
    folder = tmp_path_factory.mktemp("short")
    written, page = run_short(folder / "out", ["--engine", "scripted"], scale=0.01, show=lambda line: None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", written.stem)
    text = page.read_text()
    assert str(folder) not in text
    assert str(Path.home()) not in text
    return json.loads(written.read_bytes()), text


def test_the_front_end_is_measured_whole(short: tuple[dict[str, Any], str]) -> None:
    """Every load with its throughput, latencies, CPU and frames; memory, idle and of open streams; where it ran."""
    frontend = short[0]["frontend"]
    for job in ("whole", "one_token_a_step", "coalesced", "one_token_a_frame"):
        assert frontend[job].keys() >= {"requests_per_s", "p50_ms", "p99_ms", "tokens_per_s", "tokens_per_frame"}
        assert frontend[job]["cpu_us_per_request"] > 0
        assert frontend[job]["rounds"] == 3
    assert frontend["whole"]["tokens_per_frame"] == 16
    assert frontend["one_token_a_frame"]["tokens_per_frame"] < 2 < frontend["coalesced"]["tokens_per_frame"]
    assert 20 < frontend["rss_idle_mib"] < 500
    assert 0 < frontend["fdatasync_p50_ms"] <= frontend["fdatasync_p99_ms"]
    assert 0 < frontend["open_streams"]["kib_each"] < 500
    assert frontend["pinned"] == (len(os.sched_getaffinity(0)) > 1)
    assert short[0]["environment"]["cores"] >= 1


def test_the_front_end_is_held_against_the_yardstick(short: tuple[dict[str, Any], str]) -> None:
    """Each load that the guard knows, with the interval of its ratio; no server of ours reaches the raw one."""
    ratios = short[0]["yardstick"]
    jobs = {"whole", "one_token_a_step", "coalesced"}
    assert ratios.keys() == jobs | {f"{job}_cpu" for job in jobs}
    for each in ratios.values():
        assert 0 < each["ratio_95"][0] <= each["ratio"] <= each["ratio_95"][1]
    assert ratios["whole"]["ratio"] < 1
    assert ratios["whole_cpu"]["ratio"] < 1


def test_the_readme_shows_what_was_measured_last(short: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    """The newest file by its date, with machine and version; a sentence where there is none."""
    assert "make bench" in benchmark_table(tmp_path)
    (tmp_path / "2026-01-01.json").write_text("{}")
    (tmp_path / "2026-01-02.json").write_text(json.dumps(short[0]))
    table = benchmark_table(tmp_path)
    assert "docs/benchmarks/2026-01-02.html" in table
    assert short[0]["environment"]["cpu"] in table
    assert f"| {short[0]['frontend']['whole']['requests_per_s']:,.0f} |" in table
    assert table.count("\n| 16 | ") == 1
    assert "scripted on scripted (cpu), connections" in table
    assert f"a page durable in {short[0]['frontend']['fdatasync_p50_ms']:.2f} ms" in table
    assert f"uvicorn {short[0]['environment']['packages']['uvicorn']}" in table


def test_the_report_has_front_end_and_model(short: tuple[dict[str, Any], str]) -> None:
    """Both tables, and a step for each number of connections on the model."""
    found, page = short
    assert [step["max_concurrency"] for step in found["serve"]] == [1, 4, 16]
    assert all(text in page for text in ("The front end alone", "one token a frame", "conc16", "<svg", "Environment"))
    assert "Medians of 3 rounds" in page
    assert 'aria-label="Requests a second that met every objective' in page
    assert all(0 <= step["request_goodput"] <= step["request_throughput"] for step in found["serve"])
