"""What an engine says of itself, and what it says when it cannot be had."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask, request
from tiny_models import EOS, running, save_random, shape
from transformers import LlamaConfig

from forebay.engines.model_source import ModelSource
from forebay.engines.transformers_impl import TransformersEngine
from forebay.errors import ConfigurationError, EngineUnavailable, InvalidRequest
from forebay.settings import Settings
from forebay.types import Chat, Prompt


async def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        async with running(path, **settings):
            pass
    return str(raised.value)


def changed(path: Path, target: Path, file: str, **entries: Any) -> Path:
    """A copy of the model at `path` with other entries in one of its JSON files."""
    shutil.copytree(path, target)
    values = json.loads((target / file).read_text()) | entries
    (target / file).write_text(json.dumps(values))
    return target


async def test_the_info_tells_what_was_chosen(llama: Path) -> None:
    """Format, threads, context, batching and KV memory are reported."""
    async with running(llama, dtype="auto", cpu_threads=2, kv_cache_memory_mib=2, max_num_seqs=5) as engine:
        info = engine.info
        assert info.dtype in ("float32", "bfloat16")
        assert (info.engine, info.device, info.max_model_len, info.vocab_size) == ("transformers", "cpu", 512, 260)
        assert info.chat_template is not None
        assert info.details["batching"] == "continuous"
        assert info.details["threads"] == 2
        assert info.details["max_num_seqs"] == 5
        token_bytes = 3 * 2 * 32 * (4 if info.dtype == "float32" else 2)
        assert info.details["kv_capacity_tokens"] == (2 << 20) // (token_bytes * 32) * 32


async def test_no_network_is_asked_for_a_local_model(llama: Path) -> None:
    """Loading and answering from a directory opens no connection and looks up no name."""
    asked: list[str] = []
    recording = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if not recording or event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            return
        if event != "socket.connect" or arguments[0].family != socket.AF_UNIX:
            asked.append(f"{event} {arguments}")

    sys.addaudithook(watch)  # cannot be taken away again, hence `recording`
    async with running(llama) as engine:
        await ask(engine, Prompt((1, 2, 3)))
    recording = False
    assert asked == []


async def test_a_context_that_does_not_fit_is_shortened(llama: Path, tmp_path: Path) -> None:
    """Without a wanted context length the KV cache decides; with one that does not fit the engine refuses."""
    huge = changed(llama, tmp_path / "huge", "config.json", max_position_embeddings=100_000)
    async with running(huge, kv_cache_memory_mib=1) as engine:
        assert engine.info.max_model_len == engine.info.details["kv_capacity_tokens"] == 1344
    sentence = await refusal(huge, kv_cache_memory_mib=1, max_model_len=50_000)
    assert "FOREBAY_KV_CACHE_MEMORY_MIB" in sentence
    assert "50000" in sentence
    assert "MiB are free" in await refusal(llama, kv_cache_memory_mib=1 << 40)


async def test_a_context_beyond_the_models_own_is_refused(llama: Path) -> None:
    """Positions that the model has never seen are not promised, and one token leaves no room for an answer."""
    assert "FOREBAY_MAX_MODEL_LEN is 513, but the model reads 512" in await refusal(llama, max_model_len=513)
    assert "FOREBAY_MAX_MODEL_LEN is 1" in await refusal(llama, max_model_len=1)


async def test_missing_and_broken_models_are_refused_with_advice(llama: Path, tmp_path: Path) -> None:
    """No weights, weights that are no safetensors, an unknown architecture, a broken file: a sentence, no traceback."""
    bare = shutil.copytree(llama, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    assert "safetensors" in await refusal(bare)
    torch.save({}, bare / "pytorch_model.bin")
    assert "safetensors" in await refusal(bare)
    (bare / "model.safetensors").write_bytes(b"not weights")
    assert "could not be loaded" in await refusal(bare)
    unknown = changed(llama, tmp_path / "unknown", "config.json", model_type="no-such-thing", architectures=None)
    assert "could not be loaded" in await refusal(unknown)


async def test_a_models_own_code_is_not_run(llama: Path, tmp_path: Path) -> None:
    """A directory that brings Python code is refused, and the code is not imported."""
    trap = changed(
        llama,
        tmp_path / "trap",
        "config.json",
        model_type="trap",
        auto_map={"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"},
    )
    (trap / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    assert "could not be loaded" in await refusal(trap)
    assert not (tmp_path / "sprung").exists()


async def test_end_tokens_of_the_generation_config_end_an_answer(llama: Path, tmp_path: Path) -> None:
    """A further end token ends an answer as the tokenizer's own does, without text; a stop reason only if named."""
    several = changed(llama, tmp_path / "several", "generation_config.json", eos_token_id=[EOS, 77])
    async with running(several) as engine:
        further = await ask(engine, Prompt((1, 2, 3)), logit_bias={77: 100.0})
        own = await ask(engine, Prompt((1, 2, 3)), logit_bias={EOS: 100.0})
        named = await ask(engine, Prompt((1, 2, 3)), logit_bias={77: 100.0}, stop_token_ids=(77,))
        ignored = await ask(engine, Prompt((1, 2, 3)), logit_bias={77: 100.0}, ignore_eos=True, max_tokens=3)
        held_back = await ask(engine, Prompt((1, 2, 3)), logit_bias={77: 100.0}, min_tokens=2)
    assert (further.token_ids, further.text, further.finish_reason, further.stop_reason) == ((77,), "", "stop", None)
    assert (own.token_ids, own.text, own.finish_reason, own.stop_reason) == ((EOS,), "", "stop", None)
    assert (named.token_ids, named.finish_reason, named.stop_reason) == ((77,), "stop", 77)
    assert (ignored.token_ids, ignored.finish_reason) == ((77, 77, 77), "length")
    assert len(held_back.token_ids) == 3
    assert held_back.token_ids.index(77) == 2


async def test_templates_have_a_deadline(tmp_path: Path) -> None:
    """A template that takes too long over some messages is a refusal of those messages."""
    slow = "{% for _ in range(3000) %}{% for _ in range(1000) %}{% endfor %}{% endfor %}x"
    path = save_random(LlamaConfig(**shape()), tmp_path / "slow", template=slow)
    async with running(path, render_timeout_s=0.05) as engine:
        with pytest.raises(InvalidRequest) as raised:
            await engine.render(Chat(({"role": "user", "content": "Hello"},)))
        assert raised.value.param == "messages"


async def test_before_start_and_after_close_it_is_unavailable(llama: Path) -> None:
    """An engine that is not running says so to every caller, and closing it twice or unstarted does no harm."""
    engine = TransformersEngine(Settings(_env_file=None), ModelSource(str(llama), "m", None, local=True), "cpu")
    await engine.close(1)
    for _ in range(2):
        assert not engine.health().alive
        assert engine.load().running == 0
        with pytest.raises(EngineUnavailable):
            await ask(engine, Prompt((1,)))
        with pytest.raises(EngineUnavailable):
            await engine.tokenize("x")
        await engine.start()
        assert engine.health().ok
        await engine.close(10)
        await engine.close(10)


async def test_closing_fails_those_who_wait(llama: Path) -> None:
    """A stream under way when the engine is closed ends with EngineUnavailable, after what it already got."""
    async with running(llama) as engine:
        stream = engine.generate(request(Prompt((1, 2)), max_tokens=500, ignore_eos=True))
        await anext(aiter(stream))
        await engine.close(10)
        with pytest.raises(EngineUnavailable):
            async for _ in stream:
                pass


async def test_a_start_that_is_given_up_leaves_nothing_running(llama: Path) -> None:
    """Cancelled while it loads, an engine can be closed at once, and its thread ends by itself."""
    engine = TransformersEngine(Settings(_env_file=None), ModelSource(str(llama), "m", None, local=True), "cpu")
    others = set(threading.enumerate())
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    await engine.close(10)
    assert not engine.health().alive
    for thread in set(threading.enumerate()) - others:
        if thread.name == "transformers-steps":
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive()


async def test_a_start_given_up_after_the_model_was_handed_over_leaves_nothing_running(llama: Path) -> None:
    """Cancelled when the model is loaded and `start` has not yet gone on, the thread ends all the same."""
    engine = TransformersEngine(Settings(_env_file=None), ModelSource(str(llama), "m", None, local=True), "cpu")
    others = set(threading.enumerate())
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    (thread,) = [one for one in set(threading.enumerate()) - others if one.name == "transformers-steps"]
    deadline = time.monotonic() + 60
    while not waits_for_work(thread):  # the event loop must not go on in between
        assert time.monotonic() < deadline
        time.sleep(0.01)  # noqa: ASYNC251 - nor meanwhile
    asyncio.get_running_loop().call_soon(starting.cancel)  # after the model, which is to be handed over before it
    await asyncio.wait([starting])
    assert starting.cancelled()
    await engine.close(10)
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


def waits_for_work(thread: threading.Thread) -> bool:
    """Whether the step thread is done with loading and looks for requests."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "_receive"
