"""A guard for continuous integration: the front end against a yardstick in the same run, held to a committed baseline.

A slow machine slows both, and rounds take turns, so that the ratio stays; times would not. CPU a request shows work and
hardly minds other work on the cores. Throughput shows waits too; other work on the cores costs the faster server more,
so that a busy machine is taken for a better front end, never for a worse one. The guard fails where the upper end of a
ratio's 95% interval lies below 0.8 of the baseline: where even the kindest reading is a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from forebay.bench.frontend import COALESCED, STEPS, WHOLE, Job, measure
from forebay.bench.intervals import MIN_PAIRS, Ratio, ratio_of
from forebay.bench.own_server import OwnServer, yardstick_server
from forebay.errors import ConfigurationError

ALLOWED = 0.8
"""Share of the baseline that a ratio may fall to."""
ROUNDS = {WHOLE: 3_000, STEPS: 128, COALESCED: 384}
"""Requests of one round on the front end."""
YARDSTICK = {WHOLE: (WHOLE, 6_000), STEPS: (STEPS, 128), COALESCED: (STEPS, 128)}
"""What each job is held against: the yardstick sends one token a frame, whatever the engine would do."""


def measure_ratios(
    server: OwnServer,
    *,
    scale: float = 1.0,
    num_pairs: int = MIN_PAIRS,
    show: Callable[[str], None] = lambda line: None,
) -> dict[str, Ratio]:
    """Front end / yardstick, in turn, after a round each: by job, requests/s of whole answers or tokens/s of streams;
    by the job's name with `_cpu`, the same for a second of CPU.
    """
    ratios = {}
    with yardstick_server(core=server.core) as yardstick:
        for job in ROUNDS:
            pairs = [_pair(job, server, yardstick, scale, number) for number in range(num_pairs + 1)][1:]
            for name, speed in ((job.name, _throughput), (f"{job.name}_cpu", _per_cpu)):
                ratios[name] = ratio_of(*([speed(job, pair[side]) for pair in pairs] for side in (0, 1)))
                show(f"{name}: {ratios[name]} of the yardstick")
    return ratios


def write_baseline(path: Path, ratios: Mapping[str, Ratio], where: dict[str, Any]) -> None:
    """For a quiet machine to write, and to be committed. `where`: see `environment`, taken before."""
    values = {name: {"ratio": each.median, "ratio_95": [each.low, each.high]} for name, each in ratios.items()}
    content = {"ratios": values, "environment": where}
    path.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")


def read_baseline(path: Path) -> dict[str, float]:
    """The median ratio by job. Raises ConfigurationError where there is none."""
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
        return {name: float(value["ratio"]) for name, value in found["ratios"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigurationError(f"{path} is no baseline: write one with --write on a quiet machine.") from exc


def losses(measured: Mapping[str, Ratio], baseline: Mapping[str, float]) -> list[str]:
    """A sentence for each job that is in one of them only or has become too slow; none: the guard is content."""
    found = []
    for name, before in baseline.items():
        now = measured.get(name)
        if now is None:
            found.append(f"{name} is in the baseline and was not measured.")
        elif now.high < ALLOWED * before:
            found.append(f"{name}: {now} of the yardstick, all below {ALLOWED:g} of the baseline's {before:.3f}.")
    return found + [f"{name} is measured and not in the baseline." for name in measured if name not in baseline]


def _pair(
    job: Job, server: OwnServer, yardstick: OwnServer, scale: float, number: int
) -> tuple[dict[str, float], dict[str, float]]:
    other, other_size = YARDSTICK[job]
    rounds = [(server, job, ROUNDS[job]), (yardstick, other, other_size)]
    found = {}
    for target, load, size in rounds if number % 2 else reversed(rounds):
        found[target.port] = measure(load, target, max(1, round(size * scale)), number)
    return found[server.port], found[yardstick.port]


def _throughput(job: Job, figures: Mapping[str, float]) -> float:
    return figures["tokens_per_s" if job.stream else "requests_per_s"]


def _per_cpu(job: Job, figures: Mapping[str, float]) -> float:
    """Tokens or requests for a second of CPU."""
    return 1e6 / figures["cpu_us_per_token" if job.stream else "cpu_us_per_request"]
