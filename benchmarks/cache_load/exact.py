"""What the exact tier adds to a request, found or not, against a server without a cache."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from cache_load.asking import ask_with, latencies_ms, target
from forebay.bench.cores import pinned, two_cores
from forebay.bench.disk import fdatasync_figures
from forebay.bench.intervals import median_interval
from forebay.bench.own_server import OwnServer, accounting_server
from forebay.bench.quick import run_quick

NUM_STORED = 200
CONNECTIONS = 16


def measure(pairs: int, num: int, show: Callable[[str], None]) -> dict[str, Any]:
    """Rounds in turn: `off` without a cache, `miss` and `hit` with it, all else on. The engine takes no time, so that
    a hit saves hardly anything of what it costs to find it."""
    cores = two_cores() or (None, None)
    flags, core = ("--engine", "scripted"), cores[0]
    with accounting_server(*flags, core=core) as off, accounting_server(*flags, "--cache", "exact", core=core) as on:
        kinds = {"off": (off, False), "miss": (on, False), "hit": (on, True)}
        rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
        with pinned(cores[1]):
            for number in range(pairs + 1):
                for kind, (server, is_stored) in kinds.items():
                    found = _round(server, f"{kind} {number}", num, is_stored=is_stored)
                    if number:
                        rounds[kind].append(found)
                        show(f"{kind}: {found}")
        disk = fdatasync_figures(on.data)
    return {
        **{kind: _medians(each) for kind, each in rounds.items()},
        **{f"{kind}_adds": _added(rounds[kind], rounds["off"]) for kind in ("miss", "hit")},
        **disk,
    }


def _round(server: OwnServer, label: str, num: int, *, is_stored: bool) -> dict[str, float]:
    """One request at a time for latencies, then sixteen for CPU."""
    where = target(server)
    if is_stored:
        stored = [f"Stored {number}?" for number in range(NUM_STORED)]
        run_quick(ask_with(where, stored, connections=4))
        alone, together = (stored * (count // NUM_STORED + 1) for count in (num, 4 * num))
    else:
        alone, together = (
            [f"New {label} {part} {n}?" for n in range(count)] for part, count in ((1, num), (2, 4 * num))
        )
    outcomes = run_quick(ask_with(where, alone[:num]))
    before_s = server.cpu_s()
    many = run_quick(ask_with(where, together[: 4 * num], connections=CONNECTIONS))
    cpu_s = server.cpu_s() - before_s
    seen = {outcome.cache for outcome in (*outcomes, *many)}
    assert seen == ({"hit"} if is_stored else {"miss"} if "miss" in label else {""}), seen
    return {**latencies_ms(outcomes), "cpu_us": round(1e6 * cpu_s / len(many), 1)}


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def _added(with_it: list[dict[str, float]], without: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the pairs' differences and between what they lie with 95%."""
    found: dict[str, Any] = {}
    for name in with_it[0]:
        differences = [one[name] - other[name] for one, other in zip(with_it, without, strict=True)]
        low, high = median_interval(differences)
        found[name] = {"median": round(statistics.median(differences), 3), "from": round(low, 3), "to": round(high, 3)}
    return found
