"""The numbers vLLM starts with: ours where its defaults do not suit a small machine, the settings' where set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forebay.engines.limits import available_memory
from forebay.engines.model_source import ModelSource
from forebay.engines.sizing import choose_cpu_dtype, kv_ceiling, useful_kv_tokens
from forebay.engines.vllm_impl.compiling import code_folder, obstacle_to_compiling
from forebay.settings import Settings

MIB = 1 << 20
CPU_BLOCK_SIZE = 32
"""Tokens; vLLM's 128 on a CPU shares no prefix shorter than that. Its kernels want multiples of 32."""
MAX_LOGPROBS = 20
FIT_TO_KV_CACHE = -1
"""vLLM's `max_model_len` for: the model's own, as far as one sequence of it fits into the KV cache."""


@dataclass(frozen=True, slots=True)
class KvShape:
    """What decides how much KV cache is useful."""

    bytes_per_token: int
    max_model_len: int


def engine_args(settings: Settings, source: ModelSource, device: str) -> dict[str, Any]:
    """Arguments of vLLM's AsyncEngineArgs, but for the KV cache, whose size needs the model's shape."""
    on_cpu = device == "cpu"
    args: dict[str, Any] = {
        "model": source.path_or_id,
        "revision": source.revision,
        "dtype": choose_dtype(settings, device),
        "max_model_len": settings.max_model_len or FIT_TO_KV_CACHE,
        "tokenizer_mode": "hf",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "enforce_eager": eager(settings, device),
        "max_num_seqs": settings.max_num_seqs,
        "scheduling_policy": "priority",
        "max_num_batched_tokens": max(settings.max_num_batched_tokens, settings.max_num_seqs),
        "max_logprobs": MAX_LOGPROBS,
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
        "enable_log_requests": False,
        "disable_log_stats": False,
    }
    if on_cpu:
        args["block_size"] = CPU_BLOCK_SIZE
    if settings.kv_cache_memory_mib is not None:
        args["kv_cache_memory_bytes"] = settings.kv_cache_memory_mib * MIB
    return args


def eager(settings: Settings, device: str) -> bool:
    """Compiled, a model makes a third more tokens a second on a CPU, and starts a minute later the first time."""
    if settings.enforce_eager is not None:
        return settings.enforce_eager
    return device == "cpu" and obstacle_to_compiling(code_folder(settings.cache_root)) is not None


def choose_dtype(settings: Settings, device: str) -> str:
    """On a GPU vLLM chooses."""
    return choose_cpu_dtype(settings) if device == "cpu" else settings.dtype


def kv_cache_bytes(settings: Settings, shape: KvShape, free: int | None = None) -> int:
    """KV cache on a CPU: what is useful, at most a quarter of `free`, which is what vLLM's one memory node has left."""
    useful = useful_kv_tokens(settings, shape.max_model_len) * shape.bytes_per_token
    return min(useful, kv_ceiling(available_memory(one_node=True) if free is None else free))
