"""Each kind of model answers as `model.generate` does, several requests at once, in the batching mode that suits it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from asking import ask
from tiny_models import running, shape

from forebay.types import Prompt

SaveModel = Callable[[Any], Path]

NUM_TOKENS = 40
PROMPTS = (tuple(range(40, 110)), (5,), tuple(range(200, 231)), tuple(range(32)), tuple(range(30, 63)))

CONTINUOUS = {
    "llama": lambda: transformers.LlamaConfig(**shape()),
    "llama-one-kv-head": lambda: transformers.LlamaConfig(**shape(num_key_value_heads=1)),
    "llama-biases-and-head-dim": lambda: transformers.LlamaConfig(**shape(attention_bias=True, head_dim=24)),
    "mistral-without-window": lambda: transformers.MistralConfig(**shape(sliding_window=None)),
    "mistral-window-beyond-context": lambda: transformers.MistralConfig(**shape(sliding_window=4096)),
    "qwen2": lambda: transformers.Qwen2Config(**shape()),
    "qwen3": lambda: transformers.Qwen3Config(**shape(head_dim=16)),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **shape(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
    ),
    "gemma": lambda: transformers.GemmaConfig(**shape(head_dim=16)),
    "gpt-neox": lambda: transformers.GPTNeoXConfig(**shape()),
    "olmo2": lambda: transformers.Olmo2Config(**shape()),
    "phi3": lambda: transformers.Phi3Config(**shape()),
    "smollm3": lambda: transformers.SmolLM3Config(**shape(use_sliding_window=False)),
}
SERIAL = {
    "mistral-sliding-window": lambda: transformers.MistralConfig(**shape(sliding_window=24)),
    "gemma2-softcap": lambda: transformers.Gemma2Config(**shape(head_dim=16, sliding_window=24)),
    "gpt-oss-sinks": lambda: transformers.GptOssConfig(
        **shape(head_dim=16, num_local_experts=4, num_experts_per_tok=2, sliding_window=24)
    ),
    "llama4-chunked": lambda: transformers.Llama4TextConfig(
        **shape(head_dim=16, attention_chunk_size=24, num_local_experts=2, intermediate_size_mlp=96, pad_token_id=0)
    ),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=260, hidden_size=64, num_hidden_layers=2, state_size=8, eos_token_id=256
    ),
    "dynamic-rope": lambda: transformers.LlamaConfig(
        **shape(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    ),
}


def generate(path: Path, prompt: tuple[int, ...]) -> list[int]:
    """What Transformers itself answers, without our engine."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    config = transformers.GenerationConfig(max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0)
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


async def check(path: Path, batching: str) -> None:
    async with running(path) as engine:
        assert engine.info.details["batching"] == batching
        assert (batching == "serial") == ("batching_reason" in engine.info.details)
        answers = await asyncio.gather(
            *(ask(engine, Prompt(prompt), max_tokens=NUM_TOKENS, ignore_eos=True) for prompt in PROMPTS)
        )
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert list(answer.token_ids) == await asyncio.to_thread(generate, path, prompt)


@pytest.mark.parametrize("name", CONTINUOUS)
async def test_plain_attention_is_batched_continuously(name: str, save_model: SaveModel) -> None:
    """Rows of different lengths share steps, and every answer is the one `model.generate` gives alone."""
    await check(save_model(CONTINUOUS[name]()), "continuous")


@pytest.mark.parametrize("name", SERIAL)
async def test_other_state_is_served_one_row_at_a_time(name: str, save_model: SaveModel) -> None:
    """A model that keeps or reads more than keys and values is served serially, says so, and answers correctly."""
    await check(save_model(SERIAL[name]()), "serial")
