"""What the device can do: number format and free memory."""

from __future__ import annotations

import torch

from forebay.engines.limits import available_memory
from forebay.engines.sizing import choose_cpu_dtype
from forebay.settings import Settings


def choose_dtype(settings: Settings, device: torch.device) -> torch.dtype:
    """The asked one, else bfloat16 where the device computes in it, else float32."""
    if settings.dtype != "auto":
        name = str(settings.dtype)
    elif device.type == "cuda":
        name = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    else:
        name = choose_cpu_dtype(settings) if device.type == "cpu" else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def free_memory(device: torch.device) -> int:
    """Bytes that a KV cache could be taken from."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return available_memory()
