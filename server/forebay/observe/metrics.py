"""Prometheus metrics in a registry of our own.

Recording happens on the event loop and touches plain integers only. When a scrape asks, the engine is read on the event
loop, which it belongs to; all else is measured and written in a thread. Labels are bounded: route templates, known
codes, never a tenant, a key or a name that a client sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from forebay.observe.gauges import drain_families, engine_families, system_families
from forebay.observe.histogram import LAG_BOUNDS_S, LATENCY_BOUNDS_S, PER_TOKEN_BOUNDS_S, Histogram
from forebay.observe.record import RequestRecord
from forebay.observe.sources import DrainSource, EngineSource, QueueSource
from forebay.observe.system import SystemMonitor


class Metrics:
    """Counts finished requests; reads engine, drain, process and GPUs when scraped."""

    def __init__(
        self,
        host: EngineSource,
        queue: QueueSource,
        drain: DrainSource,
        monitor: SystemMonitor,
        others: Sequence[Callable[[], Awaitable[Iterable[Metric]]]] = (),
    ) -> None:
        """`others` give the families of parts above this layer, at each scrape."""
        self._others = others
        self._host = host
        self._queue = queue
        self._drain = drain
        self._monitor = monitor
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._replays = 0
        self._tokens: Counter[str] = Counter(prompt=0, completion=0, cached=0, reasoning=0)
        self._durations: dict[str, Histogram] = {}
        self._ttft = Histogram(LATENCY_BOUNDS_S)
        self._tpot = Histogram(PER_TOKEN_BOUNDS_S)
        self._queued = Histogram(LATENCY_BOUNDS_S)
        self._abort = Histogram(LATENCY_BOUNDS_S)
        self._lag = Histogram(LAG_BOUNDS_S)

    def observe(self, record: RequestRecord) -> None:
        """Count one finished request. A status of "none" is one that was cancelled before it had an answer."""
        self._requests[record.route, str(record.status or "none"), record.outcome] += 1
        if record.error_code is not None:
            self._errors[record.error_code] += 1
        if record.replay_of is not None:
            self._replays += 1
        if (usage := record.usage) is not None:
            tokens = self._tokens
            tokens["prompt"] += usage.prompt_tokens
            tokens["completion"] += usage.completion_tokens
            tokens["cached"] += usage.cached_tokens
            tokens["reasoning"] += usage.reasoning_tokens
        if (ttft_s := record.ttft_s) is not None:
            self._ttft.observe(ttft_s)
        if (tpot_s := record.tpot_s) is not None:
            self._tpot.observe(tpot_s)
        if record.queue_s is not None:
            self._queued.observe(record.queue_s)
        if (abort_s := record.abort_s) is not None:
            self._abort.observe(abort_s)
        if (duration_s := record.duration_s) is not None:
            durations = self._durations.get(record.route)
            if durations is None:
                durations = self._durations[record.route] = Histogram(LATENCY_BOUNDS_S)
            durations.observe(duration_s)

    def loop_lag(self, seconds: float) -> None:
        """How late the event loop ran something that it was to run at a set time."""
        self._lag.observe(seconds)

    async def render(self) -> bytes:
        """The text format: ours, then what the engine's own library registered, if it runs and has any."""
        read = [*engine_families(self._host, self._queue), *drain_families(self._drain)]
        for families in self._others:
            read += await families()
        ours = await asyncio.to_thread(self._write, read)
        engine_metrics = getattr(self._host.current, "engine_metrics", None)
        if engine_metrics is None:
            return ours
        theirs: bytes = await asyncio.to_thread(engine_metrics)
        return ours + theirs

    def _write(self, read: Iterable[Metric]) -> bytes:
        system = system_families(self._monitor.sample())
        return generate_latest(_Scrape(chain(self._request_families(), read, system)))

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("forebay_requests", "Finished requests.", labels=("route", "status", "outcome"))
        for labels, count in list(self._requests.items()):
            requests.add_metric(labels, count)
        yield requests
        errors = CounterMetricFamily("forebay_request_errors", "Requests answered with an error.", labels=("code",))
        for code, count in list(self._errors.items()):
            errors.add_metric((code,), count)
        yield errors
        yield CounterMetricFamily(
            "forebay_replays", "Requests with an Idempotency-Key that got another one's answer.", value=self._replays
        )
        tokens = CounterMetricFamily(
            "forebay_tokens",
            "Tokens of finished requests; cached are part of prompt, reasoning part of completion.",
            labels=("kind",),
        )
        for kind, count in list(self._tokens.items()):
            tokens.add_metric((kind,), count)
        yield tokens
        durations = HistogramMetricFamily(
            "forebay_request_duration_seconds", "From a request's head to the end of its answer.", labels=("route",)
        )
        for route, histogram in list(self._durations.items()):
            durations.add_metric((route,), *histogram.read())
        yield durations
        for name, help_text, histogram in (
            ("time_to_first_token", "From a request's head to its first token.", self._ttft),
            ("time_per_output_token", "Mean of a request's tokens after the first.", self._tpot),
            ("queue", "Waiting before the first step, in our queue and the engine's.", self._queued),
            ("client_abort", "From noticing that a client left to telling the engine.", self._abort),
            ("event_loop_lag", "How late the event loop runs what is due.", self._lag),
        ):
            family = HistogramMetricFamily(f"forebay_{name}_seconds", help_text)
            family.add_metric((), *histogram.read())
            yield family


class _Scrape(Collector):
    """The families of one answer, as prometheus_client takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
