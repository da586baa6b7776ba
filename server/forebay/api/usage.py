"""`GET /v1/organization/usage/completions` and `GET /v1/organization/costs`, in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from forebay.api.answer import json_answer
from forebay.api.deps import ServicesDep, UsageCaller
from forebay.api.usage_query import Asked, Endpoint, read_query
from forebay.api.usage_schemas import COSTS_PARAMETERS, TOKENS_PARAMETERS, CostsPage, TokensPage
from forebay.ledger.usage import COLUMNS, METADATA, Cost, Group, Tokens

PER_UNIT = 1_000_000

OWN_NAMES = {name: name for name in COLUMNS}
FILTERS = {"project_ids": "project_id", "user_ids": "user_id", "api_key_ids": "api_key_id"}
TOKENS = Endpoint(
    groups=OWN_NAMES,
    filters={**FILTERS, "models": "model"},
    limits={"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)},
)
COSTS = Endpoint(
    groups={"project_id": "project_id", "user_id": "user_id", "api_key_id": "api_key_id", "line_item": "model"},
    filters={**FILTERS, "line_items": "model"},
    limits={"1d": (7, 180)},
)

router = APIRouter()


@router.get(
    "/v1/organization/usage/completions",
    responses={200: {"model": TokensPage}},
    openapi_extra={"parameters": TOKENS_PARAMETERS},
)
async def usage_of_completions(request: Request, caller: UsageCaller, services: ServicesDep) -> Response:
    """Tokens and requests by time, key, tenant, model, user and metadata: what was billed."""
    asked = read_query(request.query_params.multi_items(), TOKENS, caller)
    buckets = await services.usage.tokens(asked.query, caller.tenant)
    return _page(asked, [[_tokens(asked, group, sums) for group, sums in bucket] for bucket in buckets])


@router.get(
    "/v1/organization/costs",
    responses={200: {"model": CostsPage}},
    openapi_extra={"parameters": COSTS_PARAMETERS},
)
async def costs(request: Request, caller: UsageCaller, services: ServicesDep) -> Response:
    """Money by day, key, tenant, model and user; engine seconds of what has no price."""
    asked = read_query(request.query_params.multi_items(), COSTS, caller)
    buckets = await services.usage.costs(asked.query, caller.tenant)
    return _page(asked, [[_costs(asked, group, cost) for group, cost in bucket] for bucket in buckets])


def _page(asked: Asked, results: list[list[dict[str, Any]]]) -> Response:
    data = [
        {"object": "bucket", "start_time": start, "end_time": end, "results": found}
        for (start, end), found in zip(asked.query.buckets, results, strict=True)
    ]
    next_page = asked.next_page
    return json_answer({"object": "page", "data": data, "has_more": next_page is not None, "next_page": next_page})


def _tokens(asked: Asked, group: Group, sums: Tokens) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": sums.prompt,
        "input_cached_tokens": sums.cached,
        "input_uncached_tokens": sums.prompt - sums.cached,
        "output_tokens": sums.completion,
        "output_reasoning_tokens": sums.reasoning,
        "input_audio_tokens": 0,
        "output_audio_tokens": 0,
        "num_model_requests": sums.num_requests,
        **_named(asked, group, TOKENS.groups),
        "batch": None,
        "service_tier": None,
    }


def _costs(asked: Asked, group: Group, cost: Cost) -> dict[str, Any]:
    by_item = "line_item" in asked.groups
    return {
        "object": "organization.costs.result",
        "amount": {"value": _decimal(cost.micros), "currency": cost.currency},
        **_named(asked, group, COSTS.groups),
        "quantity": cost.num_tokens if by_item else None,
        "quantity_unit": "tokens" if by_item else None,
    }


def _named(asked: Asked, group: Group, names: Mapping[str, str]) -> dict[str, Any]:
    """The group's values by the names they were asked for; None for what was not."""
    values = dict(zip(asked.groups, group, strict=True))
    fields: dict[str, Any] = {name: values.get(name) for name in names}
    metadata = {name.removeprefix(METADATA): value for name, value in values.items() if name.startswith(METADATA)}
    return fields | {"metadata": metadata} if metadata else fields


def _decimal(micros: int) -> orjson.Fragment:
    """The exact number in JSON: a binary fraction would round it."""
    whole, millionths = divmod(micros, PER_UNIT)
    return orjson.Fragment(f"{whole}.{millionths:06d}".rstrip("0").rstrip(".").encode())
