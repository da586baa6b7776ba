"""The queue in front of an engine that steps fewer sequences together than the settings ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import until
from tiny_models import shape
from transformers import MistralConfig

from forebay.engines.base import Engine
from forebay.engines.model_source import ModelSource
from forebay.engines.transformers_impl import TransformersEngine
from forebay.errors import Overloaded
from forebay.observe.record import RequestRecord
from forebay.services import Services, build_services
from forebay.settings import Settings
from forebay.types import Caller
from forebay.work import Work


async def test_the_queue_begins_after_the_engines_own_slots(save_model: Callable[[Any], Path]) -> None:
    """A model that is served one row at a time has one slot: beside it wait as many as may; the next is refused."""
    path = save_model(MistralConfig(**shape(sliding_window=24)))
    settings = Settings(_env_file=None, engine="transformers", device="cpu", max_num_seqs=64, max_queued_requests=2)
    source = ModelSource(str(path), "serial", None, local=True)
    services = build_services(settings, lambda: TransformersEngine(settings, source, "cpu"))
    services.begin()
    try:
        await until(lambda: services.host.state == "ready")
        admitted = [asyncio.create_task(ask(services)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ask(services)
        for task in admitted:
            task.cancel()
        ended = await asyncio.gather(*admitted, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError] * 3
    finally:
        await services.close()


async def ask(services: Services) -> None:
    """Enters and stays: its text is never read to the end."""

    async def read(engine: Engine) -> Work:
        await asyncio.Event().wait()
        raise AssertionError("nothing sets the event")

    await services.pipeline.start(Caller("tenant", "key"), RequestRecord("id", "POST"), 1, read)
