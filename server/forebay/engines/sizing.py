"""What both model engines choose alike: threads and number format on a CPU, and how much KV cache is useful."""

from __future__ import annotations

from forebay.engines.limits import computes_bf16, usable_cpus
from forebay.settings import Settings

FEW_CORES = 4
CONTEXT_SHARE = 8
"""A sequence is taken to use an eighth of the context on average."""
MEMORY_SHARE = 0.25


def choose_threads(settings: Settings, cpus: list[int] | None = None) -> int:
    """Threads of the model on a CPU: all of a few cores; of more, one is left to the server, as vLLM does.

    `cpus`: the cores to count, those that this process may use unless told.
    """
    if settings.cpu_threads is not None:
        return settings.cpu_threads
    num_cores = len(usable_cpus() if cpus is None else cpus)
    return num_cores if num_cores <= FEW_CORES else num_cores - 1


def choose_cpu_dtype(settings: Settings) -> str:
    """The asked one, else bfloat16 where the processor computes in it, else float32."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if computes_bf16() else "float32"


def useful_kv_tokens(settings: Settings, max_model_len: int) -> int:
    """`max_num_seqs` sequences of an eighth of the context, or one of all of it."""
    return max(max_model_len, settings.max_num_seqs * max_model_len // CONTEXT_SHARE)


def kv_ceiling(free_bytes: int) -> int:
    """Bytes that a KV cache whose size nobody asked for may take: a quarter of what is free."""
    return int(free_bytes * MEMORY_SHARE)
