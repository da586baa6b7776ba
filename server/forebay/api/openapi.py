"""The OpenAPI description of routes that read their own body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from forebay.api import schemas
from forebay.api.answer_schemas import AnswerBody

BODIES = (
    schemas.ChatRequest,
    schemas.CompletionRequest,
    schemas.TokenizeRequest,
    schemas.DetokenizeRequest,
    schemas.GenerateRequest,
)
REF = "#/components/schemas/{model}"
EVENT = {
    "type": "object",
    "description": "`data` is a chunk in JSON, an error in JSON, or at the end `[DONE]`.",
    "properties": {"data": {"type": "string"}},
    "required": ["data"],
}
KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A request that repeats another's key and body within a day gets the other's answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


def documented(body: type[schemas.Body], answer: type[AnswerBody], description: str) -> dict[str, Any]:
    """Keyword arguments of a route that takes a `body` and gives an `answer`, or with `stream` events."""
    content = {"application/json": {"schema": {"$ref": REF.format(model=body.__name__)}}}
    answers: dict[str, Any] = {"description": description, "model": answer}
    if "stream" in body.model_fields:
        answers["content"] = {"text/event-stream": {"schema": EVENT}}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if "max_tokens" in body.model_fields:
        extra["parameters"] = [KEY_PARAMETER]
    return {"openapi_extra": extra, "responses": {200: answers}}


def describe_app(
    app: FastAPI,
    bodies: Sequence[type[schemas.Body]],
    rules: Callable[[dict[str, Any]], None] = lambda definitions: None,
) -> dict[str, Any]:
    """The app's OpenAPI document: its routes, their bodies, the error every route may answer, keys but for probes.

    `rules` writes into the bodies' definitions what code checks after the schema.
    """
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            description=app.description,
            servers=[{"url": app.root_path}] if app.root_path else None,
        )
        _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=REF)
        rules(definitions["$defs"])
        components = document.setdefault("components", {})
        for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's 422, which no route answers
            components["schemas"].pop(unused, None)
        components["schemas"].update(definitions["$defs"], Error=ERROR)
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"bearer": []}]
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if "probes" in operation.get("tags", ()):
                    operation["security"] = []
                operation["responses"]["default"] = {
                    "description": "An error.",
                    "content": {"application/json": {"schema": {"$ref": REF.format(model="Error")}}},
                }
        app.openapi_schema = document
    return app.openapi_schema
