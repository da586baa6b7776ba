"""The usage API in the OpenAPI document: its parameters and its answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from forebay.api.usage_query import MAX_CHARS, MAX_GROUPS, MAX_TIME, MAX_VALUES


class TokensResult(BaseModel):
    """`input_tokens` hold the cached ones, `output_tokens` the reasoning's. What was not grouped by is null."""

    object: Literal["organization.usage.completions.result"]
    input_tokens: int
    input_cached_tokens: int
    input_uncached_tokens: int
    output_tokens: int
    output_reasoning_tokens: int
    input_audio_tokens: Literal[0]
    output_audio_tokens: Literal[0]
    num_model_requests: int
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    model: str | None
    metadata: dict[str, str | None] = {}
    batch: None
    service_tier: None


class TokensBucket(BaseModel):
    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[TokensResult]


class TokensPage(BaseModel):
    object: Literal["page"]
    data: list[TokensBucket]
    has_more: bool
    next_page: str | None


class Amount(BaseModel):
    """`currency`: that of the price table, or `engine_seconds` of requests without a price."""

    value: float
    currency: str


class CostsResult(BaseModel):
    """One for each currency of a group. A line item is a model, its quantity all tokens."""

    object: Literal["organization.costs.result"]
    amount: Amount
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    line_item: str | None
    metadata: dict[str, str | None] = {}
    quantity: int | None
    quantity_unit: Literal["tokens"] | None


class CostsBucket(BaseModel):
    object: Literal["bucket"]
    start_time: int
    end_time: int
    results: list[CostsResult]


class CostsPage(BaseModel):
    object: Literal["page"]
    data: list[CostsBucket]
    has_more: bool
    next_page: str | None


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _list(name: str, description: str, items: dict[str, Any] | None = None) -> dict[str, Any]:
    item = items or {"type": "string", "minLength": 1, "maxLength": MAX_CHARS}
    most = MAX_GROUPS if name == "group_by" else MAX_VALUES
    return _parameter(name, description, {"type": "array", "items": item, "maxItems": most})


def _groups(*names: str) -> dict[str, Any]:
    metadata = {"type": "string", "pattern": "^metadata[.].", "maxLength": MAX_CHARS}
    return _list("group_by", "One result for each combination.", {"anyOf": [{"enum": list(names)}, metadata]})


_TIME = {"type": "integer", "minimum": 0, "maximum": MAX_TIME}
_COMMON = [
    _parameter("start_time", "Unix seconds, inclusive; of when requests were admitted.", _TIME),
    _parameter("end_time", "Unix seconds, exclusive; unset: now.", _TIME),
    _parameter("page", "The `next_page` of the answer before; all else as there.", {"type": "string"}),
    _list("project_ids", "Tenants that count."),
    _list("user_ids", "Users that count."),
    _list("api_key_ids", "Keys that count, by their ids."),
]
TOKENS_PARAMETERS = [
    *_COMMON,
    _parameter("bucket_width", "Unset: `1d`.", {"enum": ["1m", "1h", "1d"]}),
    _parameter("limit", "Buckets: at most 1440, 168, 31 by width.", {"type": "integer", "minimum": 1, "maximum": 1440}),
    _parameter("batch", "There are no batch jobs.", {"enum": ["false"]}),
    _groups("project_id", "user_id", "api_key_id", "model"),
    _list("models", "Models that count, by the names they were asked for by."),
]
COSTS_PARAMETERS = [
    *_COMMON,
    _parameter("bucket_width", "Days only.", {"enum": ["1d"]}),
    _parameter("limit", "Buckets.", {"type": "integer", "minimum": 1, "maximum": 180}),
    _groups("project_id", "user_id", "api_key_id", "line_item"),
    _list("line_items", "Models that count."),
]
