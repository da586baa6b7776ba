"""`bench compare --peer`: Forebay and another server on the same model, both started here, asked the same in turn."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from forebay.bench.own_server import accounting_server
from forebay.bench.peers import check_installed, command_of, engine_of, plan_for
from forebay.bench.plan import Plan
from forebay.bench.process import child_environment, free_port, running
from forebay.engines.machine import inspect_machine
from forebay.engines.model_source import resolve_model
from forebay.settings import Settings

READY_TIMEOUT_S = 600.0
"""vLLM compiles where it is not told otherwise."""
REST_S = 2.0
"""Before each turn: vLLM's worker on a CPU polls for a second after its last request, on a core the other wants."""
GREEDY = {"temperature": 0}
"""Each server has a default of its own, and drawing costs more than taking the likeliest."""


@contextmanager
def side_by_side(
    peer: str, model: str | None, kv_cache_mib: int, plan: Plan, show: Callable[[str], None]
) -> Iterator[tuple[Plan, Plan]]:
    """The plan for Forebay, which accounts for everything, and for the peer, while both run.

    `model` is a directory or a hub id, None for the demo model; `plan` has any target. Raises ConfigurationError where
    the peer is not installed or one of them does not start.
    """
    machine = inspect_machine()
    check_installed(peer, machine)
    asked: dict[str, Any] = {"engine": engine_of(peer), "model": model}
    source = resolve_model(Settings(**asked), show)
    command = command_of(peer, source, port := free_port(), kv_cache_mib, machine)
    flags = ["--engine", engine_of(peer), "--model", source.path_or_id]
    if engine_of(peer) == "vllm":
        flags += ["--kv-cache-memory-mib", str(kv_cache_mib)]
    plan = replace(plan, model=None, extra_body={**GREEDY, **plan.extra_body})
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as name, accounting_server(*flags) as ours:
        show(f"A: {shlex.join(['forebay', 'serve', *flags])}")
        show(f"B: {command}")
        url = f"http://127.0.0.1:{port}"
        log_path = Path(name) / "log"
        env = child_environment(command.env)
        with running(command.words, env, f"{url}/health", log_path, READY_TIMEOUT_S):
            yield (
                replace(plan, target=replace(plan.target, base_url=ours.url, api_key=ours.key)),
                plan_for(
                    peer, replace(plan, target=replace(plan.target, base_url=url, api_key=None), model=command.model)
                ),
            )
