"""The OpenAPI document and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from forebay.api.openapi import BODIES
from support.server import ServerProcess

OPERATIONS = {
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model_id}"),
    ("get", "/v1/organization/usage/completions"),
    ("get", "/v1/organization/costs"),
    ("post", "/tokenize"),
    ("post", "/detokenize"),
    ("post", "/generate"),
    ("get", "/"),
    ("get", "/health"),
    ("get", "/live"),
    ("get", "/ready"),
    ("get", "/metrics"),
    ("get", "/model/info"),
    ("get", "/stats"),
}
PROBES = {"/health", "/live", "/ready"}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}


@pytest.fixture(scope="module")
def document(raw: httpx.Client) -> dict[str, Any]:
    answer = raw.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Draft202012Validator:
    """Validates against a schema of the document, whose references it follows."""
    return Draft202012Validator({**schema, "components": document["components"]})


def test_every_route_is_described(document: dict[str, Any]) -> None:
    """The routes of the service and no others, each with a summary, an id of its own and its answers."""
    assert document["openapi"].startswith("3.1")
    assert {(method, path) for method, path, _ in operations(document)} == OPERATIONS
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(operation["description"] for _, _, operation in operations(document))
    assert all({"200", "default"} <= operation["responses"].keys() for _, _, operation in operations(document))
    assert all("422" not in operation["responses"] for _, _, operation in operations(document))


def test_schemas_are_valid_and_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Each schema is valid JSON Schema, each reference resolves, and none stands there unused."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    text = httpx.Response(200, json=document).text
    referenced = {name for name in schemas if f'"#/components/schemas/{name}"' in text}
    assert text.count('"$ref"') > len(schemas)
    assert referenced == set(schemas)
    for name in referenced:
        validator(document, {"$ref": f"#/components/schemas/{name}"}).is_valid({})


def test_bodies_declare_what_is_honoured_and_nothing_else(document: dict[str, Any]) -> None:
    """A body's properties are the fields that the route honours; others are not allowed."""
    for body in BODIES:
        schema = document["components"]["schemas"][body.__name__]
        assert schema["properties"].keys() == body.model_fields.keys()
        assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("name", "body", "valid"),
    [
        ("ChatRequest", CHAT, True),
        ("ChatRequest", {**CHAT, "stream": True, "stream_options": {"include_usage": True}, "stop": ["a"]}, True),
        ("ChatRequest", {**CHAT, "stop": ["a"] * 5}, False),
        ("ChatRequest", {**CHAT, "temperature": 3}, False),
        ("ChatRequest", {**CHAT, "colour": "blue"}, False),
        ("ChatRequest", {}, False),
        ("CompletionRequest", {"prompt": [[1], [2, 3]]}, True),
        ("CompletionRequest", {"prompt": [1, "x"]}, False),
        ("GenerateRequest", {"prompt": "x"}, True),
        ("GenerateRequest", {"prompt": 1}, False),
    ],
    ids=str,
)
def test_the_document_and_the_server_agree(
    document: dict[str, Any], raw: httpx.Client, name: str, body: dict[str, Any], valid: bool
) -> None:
    """What the schema allows is answered, what it forbids is a 400."""
    path = {
        "ChatRequest": "/v1/chat/completions",
        "CompletionRequest": "/v1/completions",
        "GenerateRequest": "/generate",
    }
    assert validator(document, {"$ref": f"#/components/schemas/{name}"}).is_valid(body) is valid
    assert raw.post(path[name], json=body).status_code == (200 if valid else 400)


def test_answers_fit_what_is_written_of_them(document: dict[str, Any], raw: httpx.Client) -> None:
    """Every GET route's answer has the media type and the shape of its description; so has an error."""
    for method, path, operation in operations(document):
        if method == "get":
            answer = raw.get(path.replace("{model_id}", "scripted"))
            assert answer.status_code == 200, path
            content = operation["responses"]["200"]["content"]
            media_type = answer.headers["content-type"].partition(";")[0]
            assert media_type in content, path
            if media_type == "application/json":
                validator(document, content[media_type]["schema"]).validate(answer.json())
    error = document["paths"]["/generate"]["post"]["responses"]["default"]["content"]["application/json"]["schema"]
    validator(document, error).validate(raw.post("/generate", json={}).json())
    assert not validator(document, error).is_valid({"error": "text"})


def test_all_but_probes_ask_for_a_key(document: dict[str, Any]) -> None:
    """The bearer scheme stands for the whole document, and probes are exempt."""
    assert document["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}
    open_paths = {path for _, path, operation in operations(document) if operation.get("security") == []}
    assert open_paths == PROBES


def test_streams_are_described(document: dict[str, Any]) -> None:
    """Routes that can stream say so, the others do not."""
    streaming = {
        path
        for _, path, operation in operations(document)
        if "text/event-stream" in operation["responses"]["200"].get("content", {})
    }
    assert streaming == {"/v1/chat/completions", "/v1/completions"}


def test_the_page_shows_the_document(raw: httpx.Client) -> None:
    """`/docs` is a page that loads `/openapi.json`, and one version of its scripts, by digest."""
    answer = raw.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "'/openapi.json'" in answer.text
    foreign = re.findall(r"<(?:script|link)[^>]*https?://[^>]*>", answer.text)
    assert len(foreign) == 2
    for tag in foreign:
        assert re.search(r"@\d+\.\d+\.\d+/", tag)
        assert re.search(r'integrity="sha384-[\w+/]{64}"', tag)
        assert 'crossorigin="anonymous"' in tag


def test_behind_a_prefix_the_page_and_the_document_name_it(unusual_server: ServerProcess) -> None:
    """`--root-path`: routes answer with and without the prefix, and what names routes names it too."""
    with httpx.Client(base_url=unusual_server.url) as own:
        for prefix in ("", "/llm"):
            assert "'/llm/openapi.json'" in own.get(f"{prefix}/docs").text
            assert own.get(f"{prefix}/openapi.json").json()["servers"] == [{"url": "/llm"}]
            assert own.get(f"{prefix}/v1/models/scripted").json()["id"] == "scripted"
            assert own.post(f"{prefix}/v1/chat/completions", json=CHAT).status_code == 200
