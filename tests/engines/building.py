"""How the suite configures an engine."""

from __future__ import annotations

from forebay.engines.auto import EngineChoice, build_engine
from forebay.engines.base import Engine
from forebay.settings import Settings

ENGINES = ("scripted", "transformers", "vllm")


def build(name: str, **overrides: object) -> Engine:
    """Not started. A context short enough to overrun cheaply, with room for 50 sequences.

    vLLM does not compile, which takes a minute for float32 by itself: `test_real_engines` has it as users do. One
    thread: two fight over the second core with the run's other process, and wait for each other.
    """
    shape = {"max_model_len": 1024, "max_num_seqs": 64, "kv_cache_memory_mib": 768}
    shape |= {"dtype": "float32", "cpu_threads": 1, "enforce_eager": True}
    settings = Settings(_env_file=None, engine=name, device="cpu", **shape | overrides)
    return build_engine(settings, EngineChoice(name, "cpu", ()))
