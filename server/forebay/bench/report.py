"""One HTML file that needs no other: what was run, where, its figures and charts. The charts as PNG files too."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from forebay.bench.serve import Ran
from forebay.bench.summary import warnings_of
from forebay.errors import ConfigurationError

CAPTIONS = {
    "throughput-latency": "Latency over throughput: a point a step, named by its rate or concurrency.",
    "distributions": "Which share of requests (TTFT, TPOT, E2EL) or gaps between frames (ITL) took how long at most.",
    "timeline": "The step with the most requests a second: each request from its start to its end, and the rate of "
    "tokens.",
    "goodput": "Requests a second that met every objective, in front of all that were answered.",
}
Column: TypeAlias = tuple[str, str, str]
"""(field, title, format)"""
COLUMNS: Sequence[Column] = (
    ("completed", "completed", "d"),
    ("failed", "failed", "d"),
    ("request_throughput", "requests/s", ".2f"),
    ("request_goodput", "goodput/s", ".2f"),
    ("output_throughput", "output tok/s", ".1f"),
    ("median_ttft_ms", "TTFT p50, ms", ".2f"),
    ("p99_ttft_ms", "TTFT p99", ".2f"),
    ("median_tpot_ms", "TPOT p50", ".2f"),
    ("p99_tpot_ms", "TPOT p99", ".2f"),
    ("median_e2el_ms", "E2EL p50", ".1f"),
    ("p99_e2el_ms", "E2EL p99", ".1f"),
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 2rem auto;
       padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .87rem }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, tbody:first-child td { text-align: left }
.wide { overflow-x: auto } figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto }
figcaption, .note { color: #555; font-size: .87rem } .warning { border-left: 4px solid #D55E00; padding-left: .7rem }
"""


def check_charts() -> ModuleType:
    """What draws. Raises ConfigurationError that names the extra where matplotlib is missing."""
    try:
        from forebay.bench import charts_impl
    except ImportError as exc:
        raise ConfigurationError("Charts need matplotlib: install it, or forebay[bench].") from exc
    return charts_impl


def write_report(folder: Path, label: str, ran: Sequence[Ran], where: dict[str, Any]) -> list[Path]:
    """`<label>.html` and a PNG a chart; their paths. `where`: see `environment`."""
    charts = check_charts()
    figures = charts.draw(ran)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{label}-{name}.png"
        path.write_bytes(charts.as_png(figure))
        paths.append(path)
    page = folder / f"{label}.html"
    body = steps_table([(each.step.name, each.result) for each in ran])
    body += "".join(chart(name, charts.as_svg(figure)) for name, figure in figures.items())
    page.write_text(document(label, body, where), encoding="utf-8")
    return [*paths, page]


def document(title: str, body: str, where: dict[str, Any]) -> str:
    """A page around `body`, which is HTML; the environment stands at its end."""
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>{name}</h1>\n{body}\n<h2>Environment</h2>{facts(where)}</body></html>\n"
    )


def steps_table(steps: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """(name, result) each; columns that no result has are left out."""
    columns = [column for column in COLUMNS if any(result.get(column[0]) is not None for _, result in steps)]
    rows = [[name, *cells(columns, result)] for name, result in steps]
    said = [f"{name}: {sentence}" for name, result in steps for sentence in warnings_of(result)]
    notes = "".join(f'<p class="warning">{html.escape(sentence)}</p>' for sentence in said)
    first = steps[0][1]
    what = (
        f"Model {first['model_id']}, dataset {first['dataset_name']}, burstiness {first['burstiness']:g}. Tokens are "
    )
    what += "those of the server's usage. TPOT = (E2EL - TTFT) / (n - 1)."
    heads = ["step", *titles(columns)]
    return f'<h2>Load on a server</h2>{table(heads, rows)}{notes}<p class="note">{html.escape(what)}</p>\n'


def facts(values: dict[str, Any]) -> str:
    """A table of names and values."""
    return table(
        [], [[name.replace("_", " "), _said(value)] for name, value in values.items() if value not in (None, [])]
    )


def titles(columns: Sequence[Column]) -> list[str]:
    return [title for _, title, _ in columns]


def cells(columns: Sequence[Column], figures: Mapping[str, Any]) -> list[str]:
    """Empty where there is no figure."""
    values = [(figures.get(field), form) for field, _, form in columns]
    return ["" if value is None else format(value, form) for value, form in values]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Of texts, in HTML; no head where there is none."""
    head = f"<thead>{_row('th', heads)}</thead>" if heads else ""
    body = "".join(_row("td", row) for row in rows)
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def chart(name: str, svg: str) -> str:
    caption = html.escape(CAPTIONS[name])
    labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{caption}" ', 1)
    return f"<figure>{labelled}<figcaption>{caption}</figcaption></figure>\n"


def _row(tag: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts) + "</tr>\n"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
