"""How long a row may grow and how much KV memory there is for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from forebay.engines.sizing import kv_ceiling, useful_kv_tokens
from forebay.engines.transformers_impl.blocks import BLOCK_SIZE
from forebay.errors import ConfigurationError
from forebay.settings import Settings

log = structlog.get_logger(__name__)

_DEFAULT_MODEL_LEN = 8192
"""For models without a limit of their own (recurrent ones)."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """`num_blocks` of BLOCK_SIZE tokens hold all rows; one row holds up to `max_model_len` tokens."""

    max_model_len: int
    num_blocks: int

    @property
    def num_tokens(self) -> int:
        return self.num_blocks * BLOCK_SIZE


def context_length(settings: Settings, max_position: int | None) -> int:
    """The asked context length, else the model's own (`max_position`). Raises ConfigurationError if more is asked."""
    if settings.max_model_len is None:
        return max_position or _DEFAULT_MODEL_LEN
    if settings.max_model_len < 2:
        raise ConfigurationError("FOREBAY_MAX_MODEL_LEN is 1: a prompt and an answer take two tokens at least.")
    if max_position is not None and settings.max_model_len > max_position:
        raise ConfigurationError(
            f"FOREBAY_MAX_MODEL_LEN is {settings.max_model_len}, but the model reads {max_position} tokens at most."
        )
    return settings.max_model_len


def plan_capacity(settings: Settings, model_len: int, bytes_per_token: int, free_bytes: int) -> Capacity:
    """KV memory by the settings; else enough for every row at an eighth of its context, or one at all of it, within a
    quarter of what is free.

    A context that does not fit is shortened, unless it was asked for: then ConfigurationError.
    """
    if settings.kv_cache_memory_mib is not None:
        num_bytes = settings.kv_cache_memory_mib << 20
        if num_bytes > free_bytes:
            raise ConfigurationError(
                f"FOREBAY_KV_CACHE_MEMORY_MIB is {settings.kv_cache_memory_mib}, but {free_bytes >> 20} MiB are free."
            )
    else:
        useful = max(model_len + BLOCK_SIZE, useful_kv_tokens(settings, model_len))
        num_bytes = min(useful * bytes_per_token, kv_ceiling(free_bytes))
    num_blocks = num_bytes // (bytes_per_token * BLOCK_SIZE)
    fitting = num_blocks * BLOCK_SIZE
    if fitting >= model_len:
        return Capacity(model_len, num_blocks)
    if settings.max_model_len is not None or num_blocks < 2:
        raise ConfigurationError(
            f"The KV cache of {num_bytes >> 20} MiB holds {fitting} tokens, less than the context of {model_len}: "
            "raise FOREBAY_KV_CACHE_MEMORY_MIB or lower FOREBAY_MAX_MODEL_LEN."
        )
    log.warning("context_shortened", model_len=model_len, max_model_len=fitting, kv_cache_mib=num_bytes >> 20)
    return Capacity(fitting, num_blocks)
