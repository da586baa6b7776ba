"""From settings to a step loop that is ready to run: what is loaded, chosen and measured at the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import torch

from forebay.engines.base import EngineInfo
from forebay.engines.model_source import ModelSource
from forebay.engines.sizing import choose_threads
from forebay.engines.transformers_impl.batching import NotPlain, adopt_paged_attention
from forebay.engines.transformers_impl.blocks import BLOCK_SIZE, BlockPool, blocks_for
from forebay.engines.transformers_impl.capacity import Capacity, context_length, plan_capacity
from forebay.engines.transformers_impl.device import choose_dtype, free_memory
from forebay.engines.transformers_impl.kv import LayerShape, PagedCache, bytes_per_token
from forebay.engines.transformers_impl.loading import LoadedModel, load_model
from forebay.engines.transformers_impl.loop import Outputs, StepLoop
from forebay.engines.transformers_impl.paged import PagedRunner
from forebay.engines.transformers_impl.runner import Runner
from forebay.engines.transformers_impl.sampler import Sampler
from forebay.engines.transformers_impl.scheduler import Limits, Scheduler
from forebay.engines.transformers_impl.serial import SerialRunner
from forebay.engines.vocabulary import Vocabulary
from forebay.settings import Settings

log = structlog.get_logger(__name__)

_MIXED_PREFILL_ON_CPU = 256
"""Prompt tokens in a step that also decodes: matrix products are at full speed from there, more only stalls streams."""


@dataclass(frozen=True, slots=True)
class Built:
    loaded: LoadedModel
    loop: StepLoop
    info: EngineInfo
    vocabulary: Vocabulary


def build(settings: Settings, source: ModelSource, device_name: str, deliver: Callable[[Outputs], None]) -> Built:
    """Blocks while the model loads. The calling thread has to be the one that steps: torch counts threads by caller.

    Raises ConfigurationError.
    """
    device = torch.device(device_name)
    dtype = choose_dtype(settings, device)
    num_threads = choose_threads(settings)
    torch.set_num_threads(num_threads)
    loaded = load_model(source, dtype, device)
    model_len = context_length(settings, loaded.max_position)
    details: dict[str, str | int] = {"threads": num_threads} if device.type == "cpu" else {}
    try:
        layers = adopt_paged_attention(loaded.model, model_len)
    except NotPlain as reason:
        details |= {"batching": "serial", "batching_reason": f"one row at a time: {reason}"}
        log.warning("serial_batching", model=source.name, reason=str(reason))
        capacity = Capacity(model_len, blocks_for(model_len) + 1)
        runner: Runner = SerialRunner(loaded.model, device)
        limits = Limits(max_rows=1, max_tokens=model_len, mixed_prefill=0, chunked=False)
    else:
        runner, capacity, limits, found = _paged(settings, loaded, layers, model_len, dtype, device)
        details |= found
    vocabulary = Vocabulary(loaded.tokenizer)
    info = EngineInfo(
        engine="transformers",
        model_id=source.name,
        revision=source.revision,
        max_model_len=capacity.max_model_len,
        vocab_size=loaded.vocab_size,
        num_slots=limits.max_rows,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        chat_template=loaded.tokenizer.chat_template if isinstance(loaded.tokenizer.chat_template, str) else None,
        special_tokens=vocabulary.special_tokens,
        details=details | {"max_num_seqs": limits.max_rows, "kv_capacity_tokens": capacity.num_tokens},
    )
    loop = StepLoop(
        runner,
        Scheduler(BlockPool(capacity.num_blocks), limits),
        # Sampling sorts and searches, for which MPS lacks kernels.
        Sampler(limits.max_rows, torch.device("cpu") if device.type == "mps" else device),
        vocabulary,
        eos_id=loaded.eos_id,
        max_model_len=capacity.max_model_len,
        deliver=deliver,
    )
    return Built(loaded, loop, info, vocabulary)


def _paged(
    settings: Settings,
    loaded: LoadedModel,
    layers: list[LayerShape],
    model_len: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Runner, Capacity, Limits, dict[str, str | int]]:
    token_bytes = bytes_per_token(layers, dtype)
    capacity = plan_capacity(settings, model_len, token_bytes, free_memory(device))
    max_tokens = max(settings.max_num_batched_tokens, settings.max_num_seqs)
    limits = Limits(
        max_rows=settings.max_num_seqs,
        max_tokens=max_tokens,
        mixed_prefill=min(max_tokens, _MIXED_PREFILL_ON_CPU) if device.type == "cpu" else max_tokens,
    )
    cache = PagedCache(layers, capacity.num_blocks, dtype, device)
    details: dict[str, str | int] = {
        "batching": "continuous",
        "kv_cache_mib": capacity.num_tokens * token_bytes >> 20,
        "kv_bytes_per_token": token_bytes,
        "block_size": BLOCK_SIZE,
        "max_num_batched_tokens": limits.max_tokens,
        "prefill_tokens_beside_decode": limits.mixed_prefill,
    }
    return PagedRunner(loaded.model, cache, dtype, device), capacity, limits, details
