"""What a report shows: its charts, the environment, and that scripts refuse at once what they could show nothing of."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from forebay.bench.environment import environment
from forebay.bench.figures import figures
from forebay.bench.outcome import Outcome
from forebay.bench.plan import Step, make_steps
from forebay.bench.serve import Ran
from support.server import SERVER_ROOT

charts_impl = pytest.importorskip("forebay.bench.charts_impl")
from matplotlib.axes import Axes  # noqa: E402 - after the extra is known to be there
from matplotlib.text import Text  # noqa: E402 - the same

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def answered(step: Step, throughput: float, e2el_ms: float = 100.0, percentiles: Sequence[float] = (50.0, 99.0)) -> Ran:
    """Twenty answers of three tokens."""
    outcomes = [
        Outcome(
            start_s=number / 10,
            ttft_s=e2el_ms / 4000,
            latency_s=(e2el_ms + number / 100) / 1000,
            itls_s=[e2el_ms / 4000, e2el_ms / 2000],
            output_tokens=3,
            prompt_tokens=1,
        )
        for number in range(20)
    ]
    return Ran(step, figures(outcomes, 60 / throughput, percentiles), outcomes)


def sweep(rates: Sequence[float], bounds: Sequence[int | None], throughputs: Sequence[float]) -> list[Ran]:
    return [
        answered(step, throughput, 50 + 10 * number)
        for number, (step, throughput) in enumerate(zip(make_steps(rates, bounds, [20]), throughputs, strict=True))
    ]


def panels(ran: Sequence[Ran], chart: str = "throughput-latency") -> dict[str, Axes]:
    """By title, drawn."""
    figure = charts_impl.draw(ran)[chart]
    charts_impl.as_png(figure)
    return {axes.get_title(): axes for axes in figure.axes}


def lines_of(axes: Axes) -> list[list[float]]:
    """Where the points of each line of the median are."""
    return [[float(x) for x in line.get_xdata()] for line in axes.lines if line.get_label() == "median"]


def overlap(texts: Sequence[Text]) -> list[tuple[str, str]]:
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    return [(one, other) for (one, box), (other, second) in itertools.combinations(boxes, 2) if box.overlaps(second)]


@pytest.mark.parametrize("percentiles", [(50.0, 99.0), (90.0, 99.0), (99.0,), (50.0,)])
def test_ttft_and_tpot_are_drawn_whatever_the_percentiles(percentiles: tuple[float, ...]) -> None:
    """The median is always there; a metric that no step has is left out."""
    ran = [answered(Step(20), 100.0, percentiles=percentiles)]
    assert list(panels(ran)) == ["TTFT", "TPOT", "E2EL"]
    whole = [Outcome(latency_s=0.1, output_tokens=3) for _ in range(3)]
    assert list(panels([Ran(Step(3), figures(whole, 1.0, percentiles), whole)])) == ["E2EL"]


def test_no_two_steps_have_the_same_line() -> None:
    """With more steps than colours the style of the line changes."""
    ran = sweep([math.inf], range(1, 31), range(100, 130))
    lines = panels(ran, "distributions")["E2EL"].lines
    drawn = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}  # type: ignore[attr-defined]
    assert (len(lines), len(drawn)) == (30, 30)


@pytest.mark.parametrize("e2el_ms", [584.2, 99_999.9, 0.5, 12.0])
def test_the_numbers_of_an_axis_do_not_lie_on_one_another(e2el_ms: float) -> None:
    """Five at most, however many digits a narrow range has."""
    ran = [answered(Step(20), 100.0, e2el_ms)]
    for chart in ("distributions", "throughput-latency"):
        for axes in panels(ran, chart).values():
            low, high = sorted(axes.get_xlim())
            labels = [
                label for at, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if low <= at <= high
            ]
            assert axes.get_xscale() == "log" or 2 <= len(labels) <= 5
            assert axes.get_xscale() == "log" or not overlap(labels)


def test_a_line_joins_the_steps_of_one_rate_by_concurrency() -> None:
    """Of rates x concurrencies: a line a rate, in order of concurrency even where throughput falls."""
    ran = sweep([4.0, 8.0], [16, 1, 4], [30, 10, 40, 35, 11, 50])
    axes = panels(ran)["E2EL"]
    assert lines_of(axes) == [pytest.approx([10, 40, 30]), pytest.approx([11, 50, 35])]
    assert len({line.get_color() for line in axes.lines}) == 2
    (legend,) = charts_impl.draw(ran)["throughput-latency"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["rate4", "rate8"]


@pytest.mark.parametrize("bound", [None, 8])
def test_one_line_joins_rates_where_only_they_vary(bound: int | None) -> None:
    """In their order; the colours are those of the percentiles."""
    ran = sweep([8.0, 2.0, math.inf, 4.0], [bound], [20, 10, 18, 15])
    axes = panels(ran)["TTFT"]
    assert lines_of(axes) == [pytest.approx([10, 15, 20, 18])]
    assert len({line.get_color() for line in axes.lines}) == 2


def test_one_line_joins_concurrencies_where_only_they_vary() -> None:
    """In their order."""
    axes = panels(sweep([math.inf], [8, 1, 4], [30, 10, 20]))["TPOT"]
    assert lines_of(axes) == [pytest.approx([10, 20, 30])]
    assert {text.get_text() for text in axes.texts} == {"conc1", "conc4", "conc8"}


@pytest.mark.parametrize("rates", [[math.inf], [2.0, 4.0, 8.0]])
def test_names_of_points_do_not_lie_on_one_another(rates: list[float]) -> None:
    """What is too close to another one is left out; something stays."""
    steps = make_steps(rates, range(1, 13), [20])
    ran = [answered(step, 10 if number == 0 else 1000 + number) for number, step in enumerate(steps)]
    for axes in panels(ran).values():
        assert 1 <= len(axes.texts) < len(ran)
        assert not overlap(axes.texts)


def test_the_environment_is_found_where_cores_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no CPU affinity: all cores count."""
    monkeypatch.delattr(psutil.Process, "cpu_affinity")
    assert environment()["cores"] == os.cpu_count()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["accounting_cost.py", "--pairs", "6"], "7 --pairs at least"),
        (["accounting_cost.py", "--requests", "63"], "four --requests"),
        (["accounting_cost.py", "--connections", "0"], "--connections"),
        (["overload.py", "--times", "0.9"], "--times"),
        (["overload.py", "--times", "nan"], "--times"),
        (["overload.py", "--rounds", "0"], "--rounds"),
        (["overload.py", "--seconds", "0"], "--seconds"),
        (["front_ends.py", "--model", "none", "--rounds", "6"], "--rounds: 7 at least"),
    ],
)
def test_scripts_refuse_what_has_no_figures(words: list[str], said: str) -> None:
    """As a wrong flag, before any server is started."""
    command = [sys.executable, str(BENCHMARKS / words[0]), *words[1:]]
    env = {**os.environ, "PYTHONPATH": str(SERVER_ROOT)}
    ran = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr.splitlines()[-1]
