"""Routes for operators: probes, what runs here, metrics, statistics."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from forebay import __version__
from forebay.api.answer import json_answer
from forebay.api.deps import ModelsCaller, ServicesDep, get_caller, may
from forebay.errors import EngineUnavailable, ShuttingDown
from forebay.services import Services

PROBE_RETRY_S = 5

Status = Literal["ok", "loading", "unloaded", "draining", "unhealthy"]

probes = APIRouter(tags=["probes"])
metrics = APIRouter(tags=["operations"])
ops = APIRouter(tags=["operations"])


class Live(BaseModel):
    status: Literal["alive"]


class Ready(BaseModel):
    status: Literal["ready"]


class Health(BaseModel):
    """`reason` says why the status is not `ok`."""

    status: Status
    service: Literal["forebay"]
    version: str
    model_loaded: bool
    model_name: str
    engine: str
    device: str
    reason: str | None


class ServiceInfo(BaseModel):
    name: Literal["forebay"]
    version: str
    model: str
    docs: str
    openapi: str
    endpoints: dict[str, list[str]]


class Limits(BaseModel):
    max_model_len: int
    max_num_seqs: int
    max_queued_requests: int
    max_queued_tokens: int
    max_choices: int
    max_body_bytes: int
    request_timeout_s: float


class ModelInfo(BaseModel):
    """`details` is what the engine chose by itself, in its own terms."""

    names: list[str]
    model_id: str
    revision: str | None
    engine: str
    engine_reasons: list[str]
    device: str
    dtype: str
    vocab_size: int
    chat_template_sha256: str | None
    details: dict[str, Any]
    limits: Limits


@probes.head("/live", include_in_schema=False)
@probes.get("/live", responses={200: {"model": Live}})
async def live() -> Response:
    """The process answers."""
    return json_answer({"status": "alive"})


@probes.head("/ready", include_in_schema=False)
@probes.get("/ready", responses={200: {"model": Ready}})
async def ready(services: ServicesDep) -> Response:
    """The model answers: loaded, warmed up, making progress, and the service is not draining. Else 503."""
    if services.drain.draining:
        raise ShuttingDown("The server is shutting down.", retry_after_s=PROBE_RETRY_S)
    if not services.host.health().ok:
        raise EngineUnavailable(services.host.reason or "The engine is not ready.", retry_after_s=PROBE_RETRY_S)
    return json_answer({"status": "ready"})


@probes.head("/health", include_in_schema=False)
@probes.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
async def health(services: ServicesDep) -> Response:
    """How the service is; 503 where it does not get better by itself."""
    status = _status(services)
    host = services.host
    body = {
        "status": status,
        "service": "forebay",
        "version": __version__,
        "model_loaded": host.current is not None,
        "model_name": services.models.names[0],
        "engine": services.choice.engine,
        "device": host.info.device if host.info else services.choice.device,
        "reason": "The server is shutting down." if status == "draining" else host.reason or services.drain.fatal,
    }
    return json_answer(body, status=503 if status == "unhealthy" else 200)


def _status(services: Services) -> Status:
    state = services.host.state
    if services.drain.fatal is not None or state in ("restarting", "failed"):
        return "unhealthy"
    if services.drain.draining or state == "closed":
        return "draining"
    if state in ("unloaded", "loading"):
        return state
    return "ok" if services.host.health().ok else "unhealthy"


@ops.head("/", include_in_schema=False, dependencies=[Depends(get_caller)])
@ops.get("/", dependencies=[Depends(get_caller)], responses={200: {"model": ServiceInfo}})
async def service_info(services: ServicesDep) -> Response:
    """What this is and where to go from here."""
    return json_answer(
        {
            "name": "forebay",
            "version": __version__,
            "model": services.models.names[0],
            "docs": "/docs",
            "openapi": "/openapi.json",
            "endpoints": {
                "openai": ["/v1/chat/completions", "/v1/completions", "/v1/models"],
                "usage": ["/v1/organization/usage/completions", "/v1/organization/costs"],
                "text": ["/generate", "/tokenize", "/detokenize"],
                "operations": ["/live", "/ready", "/health", "/model/info", "/metrics", "/stats"],
            },
        }
    )


@ops.get("/model/info", responses={200: {"model": ModelInfo}})
async def model_info(caller: ModelsCaller, services: ServicesDep) -> Response:
    """The model, what runs it and what it allows. 503 until it is loaded."""
    info, settings = services.host.info, services.settings
    if info is None:
        raise EngineUnavailable(services.host.reason or "The engine is not ready.", retry_after_s=PROBE_RETRY_S)
    known = asdict(info)
    template = known.pop("chat_template")
    known.pop("special_tokens")
    known.pop("step_cpus")
    limits = {name: getattr(settings, name) for name in Limits.model_fields if name != "max_model_len"}
    return json_answer(
        {
            "names": services.models.names_for(caller),
            **known,
            "engine_reasons": services.choice.reasons,
            "chat_template_sha256": None if template is None else hashlib.sha256(template.encode()).hexdigest(),
            "limits": {"max_model_len": known.pop("max_model_len"), **limits},
        }
    )


@metrics.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def prometheus(services: ServicesDep) -> Response:
    """Prometheus' text format: ours, then the engine library's own."""
    return Response(await services.metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})


@ops.get(
    "/stats",
    dependencies=[Depends(may("metrics"))],
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def stats(services: ServicesDep) -> Response:
    """The same at a glance: requests, latency percentiles, tokens per second, queue, engine, device."""
    return json_answer(await services.stats.snapshot())
