"""`bench serve` against a real server whose delays are known, and what it writes."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import statistics
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

from forebay.bench.arrivals import arrival_times
from forebay.bench.client import Target
from forebay.bench.datasets import DatasetOptions
from forebay.bench.outcome import Outcome
from forebay.bench.plan import Plan, Step, make_steps
from forebay.bench.progress import Progress
from forebay.bench.report import check_charts, write_report
from forebay.bench.serve import Ran, run_plan
from forebay.bench.summary import summary
from forebay.errors import ConfigurationError
from support.command import forebay
from support.server import ServerProcess

FIRST_MS, INTER_MS, TOKENS = 60, 10, 11
DELAYS = {"metadata": {"forebay_first_token_ms": str(FIRST_MS), "forebay_inter_token_ms": str(INTER_MS)}}
VLLM_FIELDS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("max_output_tokens_per_s", "max_concurrent_requests"),
    *(
        f"{value}_{metric}_ms"
        for value in ("mean", "median", "std", "p99")
        for metric in ("ttft", "tpot", "itl", "e2el")
    ),
}
"""What `vllm bench serve --save-result` writes of a run with `--percentile-metrics ttft,tpot,itl,e2el`."""
DETAILED = {
    *("input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times"),
    *("generated_texts", "errors"),
}


def plan_for(server: ServerProcess, *steps: Step, **options: Any) -> Plan:
    given: dict[str, Any] = {"dataset": DatasetOptions(input_len=8, output_len=TOKENS), "ignore_eos": True, "seed": 1}
    return Plan(Target(options.pop("base_url", server.url)), steps, **(given | options))


async def run_one(server: ServerProcess, step: Step, **options: Any) -> Ran:
    (ran,) = await run_plan(plan_for(server, step, **options))
    return ran


async def test_known_delays_are_measured(server: ServerProcess) -> None:
    """60 ms to the first token and 10 ms between tokens show as TTFT, TPOT and E2EL; tokens add up; SLOs split them."""
    slos = {"ttft": 1000.0, "tpot": INTER_MS / 2}
    options: dict[str, Any] = {"extra_body": DELAYS, "slos_ms": slos, "num_warmups": 8, "base_url": server.base_url}
    ran = await run_one(server, Step(24, max_concurrency=8), **options)
    result = ran.result
    assert (result["completed"], result["failed"], result["total_output_tokens"]) == (24, 0, 24 * TOKENS)
    assert FIRST_MS <= result["median_ttft_ms"] < FIRST_MS + 40
    assert INTER_MS - 1 <= result["median_tpot_ms"] < INTER_MS + 4
    e2el_ms = FIRST_MS + (TOKENS - 1) * INTER_MS
    assert e2el_ms - 1 <= result["median_e2el_ms"] < e2el_ms + 80
    assert result["max_concurrent_requests"] == 8
    assert result["request_goodput"] == 0
    assert result["request_throughput"] == pytest.approx(24 / result["duration"])


async def test_requests_come_at_the_rate(server: ServerProcess) -> None:
    """Forty at 80 a second take half a second, however fast each is answered; none comes before its time."""
    ran = await run_one(server, Step(40, request_rate=80.0), burstiness=100.0)
    due_s = arrival_times(40, 80.0, 100.0, random.Random(1))
    late_s = [outcome.start_s - due for outcome, due in zip(ran.outcomes, due_s, strict=True)]
    assert min(late_s) >= -0.001
    assert statistics.median(late_s) < 0.1
    assert 0.5 <= ran.result["duration"] < 2.0


async def test_a_conversation_goes_on_from_its_answers(server: ServerProcess) -> None:
    """Each turn's prompt holds the turns before it, so it has more tokens than theirs, and none begins too early."""
    options = DatasetOptions("multi_turn", input_len=8, output_len=TOKENS, num_turns=3)
    ran = await run_one(server, Step(3), dataset=options)
    prompts = [outcome.prompt_tokens or 0 for outcome in ran.outcomes]
    assert len(prompts) == 3
    assert prompts[0] + 8 < prompts[1] < prompts[2] - 8
    ends = [outcome.start_s + outcome.latency_s for outcome in ran.outcomes]
    assert ran.outcomes[1].start_s >= ends[0]


async def test_steps_ask_different_prompts(server: ServerProcess) -> None:
    """A sweep gives each step a seed of its own, so that no step finds another's prompts in a cache."""
    steps = make_steps([math.inf], [2, 4], [8])
    ran = await run_plan(plan_for(server, *steps, num_warmups=2))
    assert [each.step.name for each in ran] == ["conc2", "conc4"]
    assert [each.result["seed"] for each in ran] == [1, 2]
    assert all(each.result["completed"] == 8 for each in ran)


async def test_refused_requests_are_counted_by_kind(server: ServerProcess) -> None:
    """A model that the server has not, a field that it does not know: failures, and no figures of them."""
    ran = await run_one(server, Step(3), extra_body={"temperature": 99})
    assert ran.result["error_counts"] == {"status_400": 3}
    assert ran.result["completed"] == 0


async def test_a_server_that_is_not_there_is_said_at_once() -> None:
    """Before any load, where the model has to be asked for."""
    with pytest.raises(ConfigurationError, match="does not answer"):
        await run_plan(Plan(Target("http://127.0.0.1:9"), [Step(1)]))


async def test_requests_come_when_the_file_says(server: ServerProcess, tmp_path: Path) -> None:
    """With times in the file: then. Without them `self_timed` is refused before any load."""
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x", "output_tokens": 2, "at": at}) + "\n" for at in (3, 3.1, 3.3)))
    ran = await run_one(server, Step(3), dataset=DatasetOptions("custom", path), self_timed=True)
    late_s = [outcome.start_s - due for outcome, due in zip(ran.outcomes, (0, 0.1, 0.3), strict=True)]
    assert min(late_s) >= -0.001
    assert max(late_s) < 0.5
    short = await run_one(server, Step(9), dataset=DatasetOptions("custom", path), self_timed=True)
    assert (short.result["num_prompts"], short.result["num_prompts_asked"], short.result["completed"]) == (3, 9, 3)
    assert "The dataset holds 3 requests, not 9." in summary("all", short.result)
    with pytest.raises(ConfigurationError, match="self-timed"):
        await run_one(server, Step(3), self_timed=True)


def test_progress_is_shown_on_a_terminal_only() -> None:
    """How many of how many, how fast, how many failed; nothing into a file."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        progress = Progress("conc4", 3, stream)
        for outcome in (Outcome(), Outcome(), Outcome(failure="reset")):
            progress.count(outcome)
        progress.close()
        assert bool(stream.getvalue()) == shown
        assert not shown or re.search(r"conc4 \[#{30}\] 3/3, [\d.]+/s, 1 failed\n$", stream.getvalue())


def test_charts_without_matplotlib_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured."""
    monkeypatch.delitem(sys.modules, "forebay.bench.charts_impl", raising=False)
    monkeypatch.delattr("forebay.bench.charts_impl", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"forebay\[bench\]"):
        check_charts()


def test_the_command_writes_what_tools_read(server: ServerProcess, tmp_path: Path) -> None:
    """JSON with the fields of `vllm bench serve`, the machine and the commit; CSV; PNG; one HTML that needs nothing
    else."""
    words = ["--base-url", server.url, "--endpoint", "/v1/completions", "--token-ids", "300:400", "--label", "run"]
    words += ["--num-prompts", "12", "--max-concurrency", "2", "4", "--input-len", "20", "--output-len", "8"]
    words += ["--goodput", "ttft:500", "e2el:2000", "--ignore-eos", "--metadata", "site=here", "--save-detailed"]
    ran = forebay("bench", "serve", *words, "--report", "--result-dir", str(tmp_path), data_dir=tmp_path / "none")
    assert ran.returncode == 0, ran.stderr
    assert "== conc4" in ran.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        *("run-conc2.json", "run-conc4.json", "run.csv", "run.html"),
        *(f"run-{name}.png" for name in ("throughput-latency", "distributions", "timeline", "goodput")),
    }
    result = json.loads((tmp_path / "run-conc4.json").read_bytes())
    assert result.keys() >= VLLM_FIELDS | DETAILED
    assert (result["site"], result["max_concurrency"], result["total_input_tokens"]) == ("here", 4, 12 * 20)
    assert {len(result[name]) for name in DETAILED} == {12}
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    assert result["environment"].keys() >= {"commit", "cpu", "cores", "python", "load_average_before", "packages"}
    with (tmp_path / "run.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["max_concurrency"] for row in rows] == ["2", "4"]
    assert float(rows[1]["p99_ttft_ms"]) == pytest.approx(result["p99_ttft_ms"])
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.glob("*.png"))
    check_page((tmp_path / "run.html").read_text())


async def test_a_warm_up_that_failed_is_told(server: ServerProcess) -> None:
    """The figures may be those of a cold server."""
    ran = await run_one(server, Step(2), num_warmups=3, extra_body={"temperature": 99})
    assert ran.result["num_warmups_failed"] == 3
    assert "3 requests of the warm-up failed" in summary("all", ran.result)


async def test_a_server_that_only_refuses_has_a_report_too(server: ServerProcess, tmp_path: Path) -> None:
    """Without charts, with what was refused."""
    ran = await run_one(server, Step(3), extra_body={"temperature": 99})
    assert "Failures: 3 status_400: {" in summary("all", ran.result)
    (path,) = write_report(tmp_path, "run", [ran], {})
    assert "3 status_400" in path.read_text()
    assert "<svg" not in path.read_text()


def check_page(page: str) -> None:
    """Well-formed charts, every step named, nothing that a browser would fetch."""
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 4
    texts = ["".join(ET.fromstring(chart).itertext()) for chart in charts]
    assert all(title in texts[1] for title in ("TTFT", "TPOT", "E2EL", "conc2", "conc4"))

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "img", "iframe")
            for name, value in attrs:
                assert name not in ("src", "href", "xlink:href") or (value or "").startswith("#"), (tag, name, value)

    Links().feed(page)
    assert "url(http" not in page


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "--goodput", "speed:1"], "'speed' is none of"),
        (["serve", "--goodput", "ttft"], "is not NAME:VALUE"),
        (["serve", "--goodput", "tpot:9", "--no-stream"], "--goodput: a whole answer (--no-stream) has no tpot"),
        (["serve", "--result-dir", "/proc/none"], "--result-dir /proc/none: nothing can be written there"),
        (["serve", "--result-dir", __file__], "--result-dir"),
        (["serve", "--label", "a/b"], "--label: 'a/b' is no name of a file"),
        (["serve", "--label", ""], "--label: '' is no name"),
        (["serve", "--metadata", "seed=3", "--result-dir", gettempdir()], "--metadata: 'seed' is no name for it"),
        (["serve", "--metadata", "=3", "--result-dir", gettempdir()], "--metadata: ''"),
        (["serve", "--metadata", "a=3"], "--metadata: nothing is written"),
        (["serve", "--goodput", "ttft:1", "ttft:2"], "'ttft' is given twice"),
        (["serve", "--num-turns", "3"], "--num-turns: random on"),
        (["serve", "--token-ids", "5:9"], "--token-ids: random on"),
        (["serve", "--dataset-path", "/x"], "--dataset-path: random"),
        (["serve", "--burstiness", "0.5"], "--burstiness: without"),
        (["serve", "--self-timed", "--request-rate", "3"], "--request-rate: with --self-timed"),
        (["serve", "--max-concurrency", "1", "2", "--num-prompts", "1", "2", "3"], "2 steps want one number"),
        (["serve", "--dataset-name", "custom"], "needs --dataset-path"),
        (["compare", "http://127.0.0.1:1", "somewhere"], "two URLs or two sets"),
        (["compare", "nowhere", "somewhere"], "nowhere is no result file"),
        (["compare", "http://127.0.0.1:1", "http://127.0.0.1:2", "--pairs", "6"], "7 pairs at least"),
        (
            ["compare", "http://127.0.0.1:1", "http://127.0.0.1:2", "--kv-cache-mib", "9"],
            "--kv-cache-mib: only servers",
        ),
    ],
)
def test_flags_that_make_no_sense_are_refused(words: list[str], sentence: str, capsys: Any) -> None:
    """In a sentence, with exit code 2, and without a server's settings."""
    from forebay.cli import main

    assert main(["bench", *words, "--model", "m"]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--max-concurrency", "0"),
        ("--num-prompts", "0"),
        ("--input-len", "0"),
        ("--output-len", "0"),
        ("--num-turns", "0"),
        ("--num-prefixes", "0"),
        ("--num-distinct", "0"),
        ("--range-ratio", "-0.1"),
        ("--range-ratio", "1.1"),
        ("--skew", "nan"),
        ("--burstiness", "inf"),
        ("--seed", "99999999999999999999"),
        ("--output-len", "99999999999"),
        ("--request-rate", "nan"),
    ],
)
def test_numbers_that_no_load_can_have_are_refused(flag: str, value: str, capsys: Any) -> None:
    """Exit code 2, and the flag and value are named."""
    from forebay.cli import main

    with pytest.raises(SystemExit, match="2"):
        main(["bench", "serve", flag, value])
    said = capsys.readouterr().err
    assert flag in said
    assert repr(value) in said
