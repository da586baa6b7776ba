"""Environment variables of vLLM and its libraries, set while it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from forebay.engines.model_source import ModelSource
from forebay.engines.vllm_impl.compiling import code_folder
from forebay.engines.vllm_impl.sizing import eager
from forebay.settings import Settings

SPIN_COUNT = 10_000
"""Turns, 0.1 ms by libgomp's own estimate, that a thread spins for the others before it sleeps.

Measured on two cores (docs/performance.md): asleep at once, they compute a third slower; with libgomp's own 300,000 the
model becomes ten times slower as soon as anything else runs, because who spins holds the core that the other needs.
"""


def vllm_environment(settings: Settings, source: ModelSource, device: str) -> dict[str, str]:
    """What vLLM, and the engine process it starts, are to find where the operator has set nothing else.

    No usage reports; no network for a local model; no logging set-up of its own, so that its records reach ours; its
    C++ libraries and Python warnings quiet; processes spawned, because a fork of a process with threads may hang.
    """
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if source.local:
        wanted |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if device == "cpu":
        if "OMP_WAIT_POLICY" not in os.environ:  # the spin count would win over the operator's policy
            wanted["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
        if eager(settings, device):
            # vLLM compiles two helpers of logprobs even when eager: seconds of g++ on first use, or a failure.
            wanted["TORCHDYNAMO_DISABLE"] = "1"
        else:
            # vLLM cannot read what it keeps of code for a CPU, and compiles anew at each start; torch can.
            wanted["VLLM_USE_AOT_COMPILE"] = "0"
            wanted["TORCHINDUCTOR_CACHE_DIR"] = str(code_folder(settings.cache_root))
    return wanted


@contextmanager
def lent_environment(defaults: Mapping[str, str], fixed: Mapping[str, str] | None = None) -> Iterator[None]:
    """`defaults` where nothing is set and `fixed` whatever is set, for as long as the block runs; then all is as it
    was, whatever the block set."""
    before = dict(os.environ)
    for name, default in defaults.items():
        os.environ.setdefault(name, default)
    os.environ.update(fixed or {})
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
