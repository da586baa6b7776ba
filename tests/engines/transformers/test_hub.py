"""A model named by its hub id, from the hub's cache: no network is needed for what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny_models import shape
from transformers import LlamaConfig

from support.server import ServerProcess

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "owner/tiny"


@pytest.fixture(scope="module")
def hub(save_model: Callable[[Any], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HF_HOME whose cache holds one commit of one model, laid out as the hub's client does."""
    home = tmp_path_factory.mktemp("hub")
    cached = home / "hub" / "models--owner--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots").mkdir()
    # vLLM's kernels want heads of 32.
    saved = save_model(LlamaConfig(**shape(head_dim=32)))
    os.rename(saved, cached / "snapshots" / COMMIT)
    return home


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.prove)])
def test_a_hub_id_is_loaded_from_the_cache(engine: str, hub: Path, tmp_path: Path) -> None:
    """At the pinned revision, which the server tells; it answers under the model's id. Ledger and engine agree."""
    flags = ["--engine", engine, "--model", HUB_ID]
    settings = {"FOREBAY_REVISION": COMMIT, "FOREBAY_KV_CACHE_MEMORY_MIB": "16", "FOREBAY_DTYPE": "float32"}
    server = ServerProcess(tmp_path / "log", flags, settings | {"HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"})
    try:
        server.start(ready_timeout_s=120)
        body = {"model": HUB_ID, "prompt": "water", "max_tokens": 3, "ignore_eos": True}
        answer = httpx.post(f"{server.base_url}/completions", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == HUB_ID
        assert answer.json()["usage"]["completion_tokens"] == 3
        info = httpx.get(f"{server.url}/model/info", timeout=10).json()
        assert COMMIT in str(info)
        metrics = httpx.get(f"{server.url}/metrics", timeout=10).text
        for kind in ("prompt", "generated"):
            assert f'forebay_ledger_drift_tokens{{kind="{kind}"}} 0.0\n' in metrics
    finally:
        server.stop()
