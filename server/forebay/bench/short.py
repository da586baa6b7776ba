"""`bench short`: the front end, its ratio to the yardstick, and a model under load, in a few minutes and one report."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from forebay.bench.client import Client, Target
from forebay.bench.datasets import DatasetOptions
from forebay.bench.environment import environment
from forebay.bench.frontend import ROUNDS, SIZES, on_two_cores, run_frontend
from forebay.bench.guard import measure_ratios
from forebay.bench.own_server import open_server
from forebay.bench.plan import Plan, Step
from forebay.bench.quick import run_quick
from forebay.bench.report import cells, chart, check_charts, document, facts, steps_table, table, titles
from forebay.bench.results import check_folder
from forebay.bench.serve import Ran, run_plan
from forebay.bench.summary import summary

LOADS = ((1, 6), (4, 16), (16, 48))
"""(connections, requests) on the model, each with `PROMPT_LEN` and `OUTPUT_LEN` tokens."""
PROMPT_LEN, OUTPUT_LEN = 64, 64
SLOS_MS = {"ttft": 450.0, "tpot": 40.0}
"""What goodput asks of the model: the limits of MLPerf Inference v5.0 for interactive use (Llama 2 70B)."""
NOTE = f"""Medians of {ROUNDS} rounds. Scripted engine without delays, server on one core, client on another; a key with
limits and budgets, prices, ledger, logs, metrics and the exact tier of the cache on. The yardstick is a raw ASGI app
that sends answers made beforehand."""
COLUMNS = (
    ("requests_per_s", "requests/s", ".0f"),
    ("tokens_per_s", "tokens/s", ".0f"),
    ("tokens_per_frame", "tokens a frame", ".1f"),
    ("p50_ms", "p50, ms", ".2f"),
    ("p99_ms", "p99, ms", ".2f"),
    ("cpu_us_per_request", "CPU a request, us", ".0f"),
    ("cpu_us_per_token", "CPU a token, us", ".1f"),
)


def run_short(folder: Path, flags: Sequence[str], *, scale: float, show: Callable[[str], None]) -> list[Path]:
    """`<date>.json` and `<date>.html` in the folder. `flags` are those of `forebay serve` for the model."""
    check_charts()
    check_folder(folder, "--out")
    where = environment()
    if not where["was_quiet"]:
        show(f"Load average {where['load_average_before']}: this machine is busy, its figures are not for publication.")
    model, ran = _on_model(flags, scale, show)  # first, because it may not be there
    with on_two_cores() as server:
        frontend = run_frontend(server, scale=scale, num_open=max(100, round(2000 * min(scale, 1))), show=show)
        ratios = measure_ratios(server, scale=scale / 2, show=show)
    found = {
        "environment": where,
        "model": model,
        "frontend": frontend,
        "yardstick": {name: {"ratio": each.median, "ratio_95": [each.low, each.high]} for name, each in ratios.items()},
        "serve": [each.result for each in ran],
    }
    paths = [folder / f"{time.strftime('%Y-%m-%d')}.{ending}" for ending in ("json", "html")]
    paths[0].write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    paths[1].write_text(page(found, ran), encoding="utf-8")
    return paths


def page(found: Mapping[str, Any], ran: Sequence[Ran]) -> str:
    """The report, as HTML."""
    charts = check_charts()
    body = _frontend_part(found["frontend"], found["yardstick"])
    body += steps_table([(each.step.name, each.result) for each in ran])
    body += facts(found["model"] | {"SLOs of goodput, ms": SLOS_MS})
    body += "".join(chart(name, charts.as_svg(figure)) for name, figure in charts.draw(ran).items())
    return document(f"Forebay benchmarks, {found['environment']['time'][:10]}", body, found["environment"])


def _on_model(flags: Sequence[str], scale: float, show: Callable[[str], None]) -> tuple[dict[str, str], list[Ran]]:
    """(name, engine and device of the model, its steps)"""
    steps = [Step(max(1, round(num * scale)), max_concurrency=connections) for connections, num in LOADS]
    with open_server(*flags) as server:
        plan = Plan(
            Target(server.url),
            steps,
            DatasetOptions(input_len=PROMPT_LEN, output_len=OUTPUT_LEN),
            ignore_eos=True,
            num_warmups=2,
            slos_ms=SLOS_MS,
            seed=time.time_ns() % 2**31,
        )
        health = run_quick(_health(plan.target))
        model = {"name": health["model_name"], "engine": health["engine"], "device": health["device"]}
        return model, run_quick(run_plan(plan, lambda each: show(summary(each.step.name, each.result))))


async def _health(target: Target) -> dict[str, Any]:
    client = Client(target)
    try:
        return await client.fetch("/health")
    finally:
        client.close()


def _frontend_part(frontend: Mapping[str, Any], ratios: Mapping[str, Any]) -> str:
    heads = ["load", "connections", *titles(COLUMNS), "of the yardstick (95%)"]
    rows = []
    for job in SIZES:
        figures = frontend[job.name]
        ratio = ratios.get(job.name)
        of_it = (
            "" if ratio is None else f"{ratio['ratio']:.2f} ({ratio['ratio_95'][0]:.2f} to {ratio['ratio_95'][1]:.2f})"
        )
        rows.append([job.name.replace("_", " "), str(job.connections), *cells(COLUMNS, figures), of_it])
    facts_of_it = {
        "a page is durable in": f"{frontend['fdatasync_p50_ms']:.2f} ms (p99 {frontend['fdatasync_p99_ms']:.2f} ms)",
        "resident memory, idle": f"{frontend['rss_idle_mib']:.0f} MiB",
        "resident memory, after the load": f"{frontend['rss_after_load_mib']:.0f} MiB",
    }
    if (streams := frontend.get("open_streams")) is not None:
        facts_of_it[f"an open stream ({streams['num']} of them)"] = f"{streams['kib_each']:.1f} KiB"
    return (
        f'<h2>The front end alone</h2>{table(heads, rows)}<p class="note">{html.escape(NOTE)}</p>{facts(facts_of_it)}\n'
    )
