"""What only the server tells the engine: ids, priority, and the salt that keeps tenants' prefix caches apart."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from forebay.engines.base import Engine
from forebay.engines.scripted import ScriptedEngine
from forebay.middleware import new_request_id
from forebay.observe.record import RequestRecord
from forebay.services import Services, build_services
from forebay.settings import Settings
from forebay.types import Caller, Deltas, GenerationRequest, Prompt, Sampling
from forebay.work import Work


class Recorder(ScriptedEngine):
    """Remembers what it was asked."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked: list[GenerationRequest] = []

    def generate(self, request: GenerationRequest) -> Deltas:
        self.asked.append(request)
        return super().generate(request)


async def ask(services: Services, tenant: str) -> int:
    """One request of a tenant; returns how many of its prompt's tokens were found in the prefix cache."""
    request = GenerationRequest("id", Prompt((104,) * 600), Sampling(max_tokens=1))
    record = RequestRecord(new_request_id(), "POST", model="scripted")

    async def prepare(engine: Engine) -> Work:
        return Work([request])

    started = await services.pipeline.start(Caller(tenant, "key"), record, 1, prepare)
    async with aclosing(started) as generation:
        async for _ in generation:
            pass
        return generation.usage.cached_tokens


def built(secret: str | None = None) -> tuple[Services, Recorder]:
    settings = Settings(engine="scripted", lazy_load=True, secret=secret)
    engine = Recorder(settings)

    def build() -> Engine:
        return engine

    services = build_services(settings, build)
    services.begin()
    return services, engine


async def test_tenants_share_no_prefix_cache() -> None:
    """CVE-2025-46570: a prompt that another tenant has sent must not answer faster, or its words can be guessed."""
    services, engine = built()
    try:
        assert await ask(services, "one") == 0
        assert await ask(services, "one") > 0
        assert await ask(services, "two") == 0
    finally:
        await services.close()
    first, again, other = (request.cache_salt for request in engine.asked)
    assert first == again != other
    assert first is not None
    assert len(first) == 32
    assert "one" not in first


@pytest.mark.parametrize(
    ("left", "right", "same"), [("a" * 32, "a" * 32, True), ("a" * 32, "b" * 32, False), (None, None, True)]
)
async def test_the_salt_depends_on_a_secret(left: str | None, right: str | None, same: bool) -> None:
    """Nobody who knows a tenant's name knows its salt; without a setting the data folder keeps a secret."""
    salts = []
    for secret in (left, right):
        services, engine = built(secret)
        await ask(services, "one")
        salts.append(engine.asked[0].cache_salt)
        await services.close()
    assert (salts[0] == salts[1]) is same
