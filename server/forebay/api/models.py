"""`GET /v1/models` and `/v1/models/{model_id}`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from forebay.api.answer import json_answer
from forebay.api.answer_schemas import Model, ModelList
from forebay.api.deps import ModelsCaller, ServicesDep
from forebay.services import Services

router = APIRouter()


@router.get("/v1/models", responses={200: {"model": ModelList}})
async def list_models(caller: ModelsCaller, services: ServicesDep) -> Response:
    """The names under which the model is served, those that the caller may use."""
    return json_answer(
        {"object": "list", "data": [_model(services, name) for name in services.models.names_for(caller)]}
    )


@router.get("/v1/models/{model_id:path}", responses={200: {"model": Model}})
async def retrieve_model(model_id: str, caller: ModelsCaller, services: ServicesDep) -> Response:
    """One of them; ids may hold slashes."""
    return json_answer(_model(services, services.models.resolve(model_id, caller)))


def _model(services: Services, name: str) -> dict[str, Any]:
    info = services.host.info
    return {
        "id": name,
        "object": "model",
        "created": services.started_at,
        "owned_by": "forebay",
        "root": services.models.names[0],
        "max_model_len": info.max_model_len if info else None,
    }
