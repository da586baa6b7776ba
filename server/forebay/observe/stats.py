"""Statistics at a glance, for people: what Prometheus would compute from the metrics, here over a short window."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any

from forebay import __version__
from forebay.observe.record import PROBES, SCRAPES, RequestRecord
from forebay.observe.sources import DrainSource, EngineSource, QueueSource
from forebay.observe.system import SystemMonitor

WINDOW = 2048
"""Finished requests that percentiles are taken over."""

RATE_WINDOWS_S = (10, 60)
TICK_S = 1.0
PERCENTILES = (50, 90, 95, 99)


class Stats:
    """Fed with every finished request; `tick` about once a second, for the rates."""

    def __init__(self, host: EngineSource, queue: QueueSource, drain: DrainSource, monitor: SystemMonitor) -> None:
        self._host = host
        self._queue = queue
        self._drain = drain
        self._monitor = monitor
        self._started = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._num_uncharged = 0
        self._ttft: deque[float] = deque(maxlen=WINDOW)
        self._tpot: deque[float] = deque(maxlen=WINDOW)
        self._e2e: deque[float] = deque(maxlen=WINDOW)
        self._generated = Rate()
        self._prompt = Rate()

    def observe(self, record: RequestRecord) -> None:
        """Count one finished request; probes and scrapes are none. Only complete answers enter the latencies."""
        if record.route in PROBES or record.route in SCRAPES:
            return
        self._outcomes[record.outcome] += 1
        self._num_uncharged += record.uncharged_tokens
        if record.outcome != "ok" or (ttft_s := record.ttft_s) is None:
            return
        self._ttft.append(ttft_s)
        if (tpot_s := record.tpot_s) is not None:
            self._tpot.append(tpot_s)
        if (duration_s := record.duration_s) is not None:
            self._e2e.append(duration_s)

    def tick(self) -> None:
        """Note the engine's counters now."""
        now, load = time.monotonic(), self._host.load()
        self._generated.note(now, load.num_generated_tokens)
        self._prompt.note(now, load.num_prompt_tokens)

    async def snapshot(self) -> dict[str, Any]:
        """Latencies in milliseconds, rates in tokens per second, memory in bytes; None where nothing is known yet."""
        self.tick()
        system = await asyncio.to_thread(self._monitor.sample)
        host, load, info = self._host, self._host.load(), self._host.info
        health = host.health()
        return {
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._started, 1),
            "engine": {
                "name": info.engine if info else None,
                "model": info.model_id if info else None,
                "device": info.device if info else None,
                "state": host.state,
                "healthy": host.state == "ready" and health.ok,
                "restarts": host.num_restarts,
            },
            "requests": {
                "total": self._outcomes.total(),
                "in_flight": self._drain.in_flight,
                **{name: self._outcomes[name] for name in ("ok", "refused", "failed", "timeout", "client_gone")},
            },
            **({"uncharged_tokens": self._num_uncharged} if self._num_uncharged else {}),
            "latency_ms": {
                "window": len(self._e2e),
                "ttft": summarize(self._ttft),
                "tpot": summarize(self._tpot),
                "e2e": summarize(self._e2e),
            },
            "tokens_per_s": {
                "generated": {f"last_{window}s": self._generated.over(window) for window in RATE_WINDOWS_S},
                "prompt": {f"last_{window}s": self._prompt.over(window) for window in RATE_WINDOWS_S},
            },
            "queue": {
                "running": load.running,
                "waiting": self._queue.num_waiting + load.waiting,
                "kv_use": round(load.kv_use, 4),
            },
            "draining": self._drain.draining,
            "cpu_percent": system.cpu_percent,
            "memory_bytes": {"server": system.server.rss, "children": system.children.rss},
            "gpus": [
                {
                    "index": gpu.index,
                    "name": gpu.name,
                    "busy_percent": round(100 * gpu.busy, 1),
                    "memory_used_bytes": gpu.memory_used,
                    "memory_total_bytes": gpu.memory_total,
                }
                for gpu in system.gpus
            ],
        }


def summarize(seconds: Iterable[float]) -> dict[str, float] | None:
    """Percentiles in milliseconds, interpolated between the two nearest values; None without values."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {f"p{percent}": round(1000 * _percentile(ordered, percent), 3) for percent in PERCENTILES}


def _percentile(ordered: Sequence[float], percent: float) -> float:
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


class Rate:
    """A counter's growth per second over the last seconds. One that falls is a new engine's: it grew from zero."""

    def __init__(self) -> None:
        self._total = 0
        self._last = 0
        self._now = 0.0
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, value: int) -> None:
        self._total += value - self._last if value >= self._last else value
        self._last, self._now = value, now
        if self._samples and now - self._samples[-1][0] < TICK_S / 2:
            return
        self._samples.append((now, self._total))
        while self._samples[0][0] < now - max(RATE_WINDOWS_S) - TICK_S:
            self._samples.popleft()

    def over(self, window_s: float) -> float | None:
        """Per second over the last `window_s` seconds, or over what there is; None until half a second was seen."""
        first = next((sample for sample in self._samples if sample[0] >= self._now - window_s - TICK_S / 2), None)
        if first is None or self._now - first[0] < TICK_S / 2:
            return None
        return round((self._total - first[1]) / (self._now - first[0]), 2)
