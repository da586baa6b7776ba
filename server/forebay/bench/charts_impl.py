"""The report's charts, drawn by matplotlib without a display."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from matplotlib.transforms import Bbox

from forebay.bench.figures import samples, tokens_by_time
from forebay.bench.outcome import Outcome
from forebay.bench.serve import Ran

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which are told apart by the colour-blind."""
MARKERS = ("o", "^")
"""Of the median and of the highest percentile."""
MAX_TICKS = 5
"""On a horizontal axis: numbers in a narrow range have many digits."""
QUANTILES = 400
"""Points of a distribution's curve, however many requests it is made of."""
MAX_ROWS = 300
"""Requests that a timeline shows."""
BINS, SHORTEST_BIN_S = 40, 0.25
"""Of the rate of tokens under a timeline."""
WIDE = 5
"""From the largest over the smallest value on, an axis is logarithmic: else the small ones lie on each other."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "forebay",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(ran: Sequence[Ran]) -> dict[str, Figure]:
    """Charts by file name, of the steps in which anything was answered."""
    ran = [each for each in ran if each.result["completed"]]
    if not ran:
        return {}
    with mpl.rc_context(STYLE):
        busiest = max(ran, key=lambda each: float(each.result["request_throughput"]))
        charts = {
            "throughput-latency": _curve(ran),
            "distributions": _distributions(ran),
            "timeline": _timeline(busiest),
        }
        if any(each.result["request_goodput"] is not None for each in ran):
            charts["goodput"] = _goodput(ran)
        return charts


def as_png(figure: Figure) -> bytes:
    return _saved(figure, "png", dpi=120)


def as_svg(figure: Figure) -> str:
    """To stand within HTML."""
    text = _saved(figure, "svg", metadata={"Date": None}).decode()
    return text[text.index("<svg") :]


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format=form, **options)
    return file.getvalue()


def _curve(ran: Sequence[Ran]) -> Figure:
    """Latencies over throughput, a point a step; colours tell lines apart, or percentiles where there is one line."""
    metrics = [metric for metric in ("ttft", "tpot") if any(each.result[f"median_{metric}_ms"] for each in ran)]
    metrics.append("e2el")
    figure = Figure(figsize=(4.2 * len(metrics), 3.6), layout="constrained")
    lines = _lines(ran)
    throughputs = [each.result["output_throughput"] for each in ran]
    for axes, metric in zip(_row(figure, len(metrics)), metrics, strict=True):
        percentiles = _percentiles(ran[0].result, metric)
        highest = max(each.result[f"{name}_{metric}_ms"] for each in ran for name in percentiles)
        for number, (steps, (place, name)) in enumerate(itertools.product(lines.values(), enumerate(percentiles))):
            style = _line_style(number // len(percentiles) if len(lines) > 1 else place)
            points = [(each.result["output_throughput"], each.result[f"{name}_{metric}_ms"]) for each in steps]
            axes.plot(*zip(*points, strict=True), marker=MARKERS[place], markersize=5, label=name, **style)
            if place == len(percentiles) - 1:
                _name_points(axes, steps, points, style["color"] if len(lines) > 1 else None)
        axes.set(xlabel="output tokens/s", ylabel="ms", title=metric.upper(), ylim=(0, highest * 1.15 or 1))
        axes.margins(x=0.12)
        _scale(axes, throughputs)
        if len(lines) == 1:
            axes.legend()
        else:
            marks = [Line2D([], [], color="#777777", linestyle="", marker=mark) for mark in MARKERS[: len(percentiles)]]
            axes.legend(marks, percentiles)
    if len(lines) > 1:
        shown = [Line2D([], [], **_line_style(number)) for number in range(len(lines))]
        figure.legend(shown, list(lines), loc="outside lower center", ncols=6, fontsize=7, handlelength=4)
    _thin_out(figure)
    return figure


def _lines(ran: Sequence[Ran]) -> dict[str, list[Ran]]:
    """Steps that a line joins, in its order: those of one request rate by concurrency, or, where there is one
    concurrency, all by rate.
    """
    ordered = sorted(ran, key=lambda each: (each.step.request_rate, each.step.max_concurrency or math.inf))
    only_rates = len({each.step.max_concurrency for each in ran}) == 1
    lines: dict[str, list[Ran]] = {}
    for each in ordered:
        lines.setdefault("" if only_rates else f"rate{each.step.request_rate:g}", []).append(each)
    return lines


def _name_points(axes: Axes, steps: Sequence[Ran], points: Sequence[tuple[float, float]], color: str | None) -> None:
    """`color`: of a line of one rate, which the legend names; its points are named by concurrency alone."""
    for each, at in zip(steps, points, strict=True):
        name = each.step.name if color is None else replace(each.step, request_rate=math.inf).name
        place: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
        axes.annotate(name, at, fontsize=7, color=color or "black", **place)


def _thin_out(figure: Figure) -> None:
    """Leaves out names of points that would lie on one another; from the right, where a sweep ends."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        kept: list[Bbox] = []
        names = [text for text in axes.texts if isinstance(text, Annotation)]
        for name in sorted(names, key=lambda name: float(name.xy[0]), reverse=True):
            box = name.get_window_extent().padded(2)
            if any(box.overlaps(other) for other in kept):
                name.remove()
            else:
                kept.append(box)


def _distributions(ran: Sequence[Ran]) -> Figure:
    """Which share of the requests (TTFT, TPOT, E2EL) or gaps (ITL) took how long at most."""
    by_step = {each.step.name: samples(_whole(each.outcomes)) for each in ran}
    metrics = [metric for metric in ("ttft", "tpot", "itl", "e2el") if any(found[metric] for found in by_step.values())]
    figure = Figure(figsize=(4.2 * min(len(metrics), 2), 3.4 * ((len(metrics) + 1) // 2)), layout="constrained")
    for number, metric in enumerate(metrics, 1):
        axes = figure.add_subplot((len(metrics) + 1) // 2, min(len(metrics), 2), number)
        for place, (name, found) in enumerate(by_step.items()):
            ordered = found[metric]
            if ordered:
                shares = [place / QUANTILES for place in range(QUANTILES + 1)]
                values = [ordered[round(share * (len(ordered) - 1))] * 1000 for share in shares]
                axes.plot(values, [share * 100 for share in shares], label=name, **_line_style(place))
        axes.set(xlabel="ms", ylabel="% within", title=metric.upper(), ylim=(0, 101))
        _scale(axes, [value * 1000 for found in by_step.values() for value in found[metric]])
        if number == 1:
            handles, names = axes.get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=6, fontsize=7, handlelength=4)
    return figure


def _timeline(ran: Ran) -> Figure:
    """Each request from its start to its end, above the rate of tokens."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    rows = figure.add_subplot(2, 1, 1)
    whole = sorted(_whole(ran.outcomes), key=lambda outcome: outcome.start_s)
    failed = [outcome for outcome in ran.outcomes if outcome.failure is not None]
    every = -(-len(whole) // MAX_ROWS)
    shown = whole[::every]
    places = range(0, len(whole), every)
    first_s = [outcome.start_s + (outcome.ttft_s or 0.0) for outcome in shown]
    starts = [outcome.start_s for outcome in shown]
    width = max(1.0, min(5.0, 200 / len(shown)))
    if any(outcome.ttft_s is not None for outcome in shown):
        rows.hlines(places, starts, first_s, color=COLORS[4], linewidth=width, label="until the first token")
    ends = [outcome.start_s + outcome.latency_s for outcome in shown]
    rows.hlines(places, first_s, ends, color=COLORS[0], linewidth=width, label="until the last")
    if failed:
        rows.plot(
            [each.start_s + each.latency_s for each in failed], [0] * len(failed), "x", color=COLORS[1], label="failed"
        )
    some = f", one in {every} shown" if every > 1 else ""
    rows.set(ylabel="request", title=f"{ran.step.name}: {len(whole)} requests{some}")
    figure.legend(loc="outside upper right", ncols=3, fontsize=7)
    rates = figure.add_subplot(2, 1, 2, sharex=rows)
    width_s = max(SHORTEST_BIN_S, max(ends) / BINS)
    counts = tokens_by_time(whole, width_s)
    edges = [shown[0].start_s + number * width_s for number in range(len(counts) + 1)]
    rates.stairs([count / width_s for count in counts], edges, color=COLORS[2])
    rates.set(xlabel="s", ylabel="output tokens/s")
    rates.set_ylim(bottom=0)
    rates.set_xlim(left=0)
    return figure


def _goodput(ran: Sequence[Ran]) -> Figure:
    """Requests a second of each step, and those of them that met every SLO."""
    figure = Figure(figsize=(max(4.2, 1.1 * len(ran) + 2), 3.4), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(ran))
    answered = [each.result["request_throughput"] for each in ran]
    good = [each.result["request_goodput"] or 0.0 for each in ran]
    bars = axes.bar(places, answered, color="#BBBBBB", label="answered")
    axes.bar(places, good, width=0.5, color=COLORS[2], label="within the SLOs")
    labels = [f"{some:.1f} of {each:.1f}" for some, each in zip(good, answered, strict=True)]
    axes.bar_label(bars, labels, padding=2, fontsize=7)
    axes.margins(y=0.1)
    axes.set_xticks(places, [each.step.name for each in ran])
    slos = ran[0].result.get("goodput_slos_ms", {})
    title = ", ".join(f"{name.upper()} <= {limit:g} ms" for name, limit in slos.items())
    axes.set(ylabel="requests/s", title=title or "Goodput")
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Of the horizontal axis: plain numbers, logarithmic where they are far apart."""
    above = [value for value in values if value > 0]
    if max(above, default=1.0) < WIDE * min(above, default=1.0):
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.xaxis.set_major_locator(MaxNLocator(MAX_TICKS - 1, steps=(1, 2, 2.5, 5, 10)))
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _line_style(number: int) -> dict[str, Any]:
    """Another one for every number: solid in the first round of colours, then dashes with a dot more each round."""
    rounds, place = divmod(number, len(COLORS))
    return {"color": COLORS[place], "linestyle": (0, (6, 2) + (1, 2) * (rounds - 1)) if rounds else "-"}


def _row(figure: Figure, number: int) -> list[Axes]:
    return [figure.add_subplot(1, number, place + 1) for place in range(number)]


def _whole(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.failure is None and not outcome.left]


def _percentiles(result: dict[str, Any], metric: str) -> list[str]:
    """p50 and the highest percentile that the result has, or the median alone."""
    found = [
        field.removesuffix(f"_{metric}_ms") for field in result if field[0] == "p" and field.endswith(f"_{metric}_ms")
    ]
    names = sorted(found, key=lambda name: float(name[1:]))
    return ["median", names[-1]] if names and names[-1] != "p50" else ["median"]
