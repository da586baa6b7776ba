"""Metric families that are read, not counted: the engine, the drain, this process and the GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from forebay import __version__
from forebay.observe.sources import DrainSource, EngineSource, QueueSource
from forebay.observe.system import SystemSample

ENGINE_STATES = ("unloaded", "loading", "ready", "restarting", "failed", "closed")


def engine_families(host: EngineSource, queue: QueueSource) -> Iterator[Metric]:
    """The engine's counters start again at zero with a restarted engine, as Prometheus expects of a restart."""
    info, load = host.info, host.load()
    build = GaugeMetricFamily("forebay_build_info", "What runs; always 1.", labels=("version", "engine", "model"))
    build.add_metric((__version__, info.engine if info else "", info.model_id if info else ""), 1)
    yield build
    yield GaugeMetricFamily(
        "forebay_engine_up",
        "1: the engine is ready and makes progress.",
        value=host.state == "ready" and host.health().ok,
    )
    states = GaugeMetricFamily("forebay_engine_state", "1 for the state the engine is in.", labels=("state",))
    for state in ENGINE_STATES:
        states.add_metric((state,), host.state == state)
    yield states
    yield CounterMetricFamily("forebay_engine_restarts", "Dead engines that were replaced.", value=host.num_restarts)
    yield GaugeMetricFamily("forebay_engine_running_sequences", "Sequences being stepped.", value=load.running)
    yield GaugeMetricFamily(
        "forebay_engine_waiting_sequences",
        "Sequences waiting for their first step, in our queue or the engine's.",
        value=queue.num_waiting + load.waiting,
    )
    yield GaugeMetricFamily("forebay_engine_kv_cache_use_ratio", "Used share of KV memory, 0..1.", value=load.kv_use)
    yield CounterMetricFamily("forebay_engine_prompt_tokens", "Prompt tokens computed.", value=load.num_prompt_tokens)
    yield CounterMetricFamily("forebay_engine_generated_tokens", "Tokens generated.", value=load.num_generated_tokens)
    yield CounterMetricFamily("forebay_engine_steps", "Engine steps.", value=load.num_steps)


def drain_families(drain: DrainSource) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "forebay_requests_in_flight", "Requests being answered, but probes and scrapes.", value=drain.in_flight
    )
    yield GaugeMetricFamily(
        "forebay_draining", "1: new work is refused, the process is about to end.", value=drain.draining
    )


def system_families(sample: SystemSample) -> Iterator[Metric]:
    cpu = CounterMetricFamily("forebay_process_cpu_seconds", "User and system CPU time.", labels=("process",))
    memory = GaugeMetricFamily("forebay_process_resident_memory_bytes", "Resident memory.", labels=("process",))
    count = GaugeMetricFamily("forebay_processes", "Processes.", labels=("process",))
    for name, use in (("server", sample.server), ("children", sample.children)):
        cpu.add_metric((name,), use.cpu_s)
        memory.add_metric((name,), use.rss)
        count.add_metric((name,), use.num_processes)
    yield from (cpu, memory, count)
    yield GaugeMetricFamily("forebay_process_open_fds", "Open file descriptors.", value=sample.num_open_files)
    labels = ("gpu", "name")
    busy = GaugeMetricFamily("forebay_gpu_busy_ratio", "Share of time with a kernel running, 0..1.", labels=labels)
    used = GaugeMetricFamily("forebay_gpu_memory_used_bytes", "Memory in use, by whomever.", labels=labels)
    total = GaugeMetricFamily("forebay_gpu_memory_total_bytes", "Memory of the device.", labels=labels)
    for gpu in sample.gpus:
        at = (str(gpu.index), gpu.name)
        busy.add_metric(at, gpu.busy)
        used.add_metric(at, gpu.memory_used)
        total.add_metric(at, gpu.memory_total)
    if sample.gpus:
        yield from (busy, used, total)
