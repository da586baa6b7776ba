"""Bytes -> validated body: media type, size, nesting, JSON, schema, known fields; each refusal names what is wrong."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Receive

from forebay.api import fields
from forebay.api.deps import RecordDep, ServicesDep, may
from forebay.api.schemas import Body
from forebay.errors import BodyTooLarge, InvalidRequest, UnsupportedMediaType
from forebay.observe.record import RequestRecord
from forebay.patience import ClientGone
from forebay.services import Services
from forebay.types import Caller, Scope

BodyT = TypeVar("BodyT", bound=Body)

LARGE_BYTES = 64 * 1024
"""Bodies from here on are read in a thread: the worst ones take half a second that nobody else should wait."""
MAX_MEMBERS = 512
"""Members of the body and of each object in it; the schema complains of every one that it refuses."""
MAX_NAME_CHARS = 64
KEY_HEADER = b"idempotency-key"
JSON = b"application/json"
KEYED_BODY = "keyed_body"
"""Of the request's state: the raw body where the client sent a key, for `api/idempotent.py`."""


def json_body(schema: type[BodyT], scope: Scope) -> Callable[..., Awaitable[BodyT]]:
    """A dependency that reads a `schema` from callers with `scope`: nothing is parsed for a stranger."""

    # A default value, because an annotation is read where `scope` is not known.
    holder = Depends(may(scope))

    async def read(request: Request, services: ServicesDep, record: RecordDep, caller: Caller = holder) -> BodyT:
        return await read_json(schema, request, services, record, caller)

    return read


async def read_json(
    schema: type[BodyT], request: Request, services: Services, record: RequestRecord, caller: Caller
) -> BodyT:
    """The request's body. Raises `InvalidRequest` and what else its head or size is refused with, `ClientGone`."""
    state, settings = request.scope["state"], services.settings
    check_media_type(state["head"])
    with record.patience:
        raw = await read_capped(request.receive, settings.max_body_bytes)
    record.fingerprint = zlib.crc32(raw)
    if len(raw) < LARGE_BYTES:
        body = read_body(schema, raw, settings.max_json_depth)
    else:
        body = await asyncio.to_thread(read_body, schema, raw, settings.max_json_depth)
    if KEY_HEADER in state["head"]:
        state[KEYED_BODY] = raw
    if extras := body.extras():
        note_ignored(request, fields.screen(extras, schema.undeclared, strict=caller.strict))
    return body


def note_ignored(request: Request, names: Sequence[str]) -> None:
    """The answer's `x-ignored-params` will list them."""
    if names:
        state = request.scope["state"]
        state["ignored_params"] = (*state.get("ignored_params", ()), *names)


def check_media_type(head: Mapping[bytes, bytes]) -> None:
    """`application/json` is demanded because browsers send anything else across origins without asking first."""
    if head.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("Compressed bodies are not accepted: send the JSON as it is.")
    media_type = head.get(b"content-type", b"")
    if media_type != JSON and media_type.partition(b";")[0].strip().lower() != JSON:
        raise UnsupportedMediaType("The body must be JSON: send `Content-Type: application/json`.")


async def read_capped(receive: Receive, limit: int) -> bytes:
    """Raises `BodyTooLarge` as soon as it is, `ClientGone` where it ends early."""
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge(f"The body is larger than {limit} bytes.")
        chunks.append(chunk)
    return b"".join(chunks)


def read_body(schema: type[BodyT], raw: bytes, max_depth: int) -> BodyT:
    """Raises `InvalidRequest`."""
    return validate(schema, parse_json(raw, max_depth))


def parse_json(raw: bytes, max_depth: int) -> Any:
    """Raises `InvalidRequest` for malformed JSON, NaN, lone surrogates, and nesting beyond `max_depth`."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        reason = str(exc).partition(":")[0]
        raise InvalidRequest(f"The body is not valid JSON (line {exc.lineno}, column {exc.colno}): {reason}.") from exc
    # Brackets in strings count too, so few of them prove that the nesting is shallow; only else is it walked.
    if raw.count(b"{") + raw.count(b"[") > max_depth and _deeper_than(value, max_depth):
        raise InvalidRequest(f"The body is nested deeper than {max_depth} levels.")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def validate(schema: type[BodyT], value: Any) -> BodyT:
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    if len(value) > MAX_MEMBERS:
        raise InvalidRequest(f"The body has more than {MAX_MEMBERS} fields.")
    for name, member in value.items():
        if type(member) is dict and len(member) > MAX_MEMBERS:
            name = name[:MAX_NAME_CHARS]
            raise InvalidRequest(f"`{name}` has more than {MAX_MEMBERS} members.", param=name)
    try:
        body: BodyT = schema.__pydantic_validator__.validate_python(value)
    except ValidationError as exc:
        raise _invalid(exc.errors(include_url=False, include_context=False, include_input=False)[0]) from exc
    return body


def _invalid(error: ErrorDetails) -> InvalidRequest:
    """The first complaint, as OpenAI puts it: the path of the field and what it should be."""
    path = ""
    for part in error["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        # A union's member ("list[str]", "constrained-str") is not part of the path; a client's own key may be long.
        elif part.isidentifier() and len(part) <= MAX_NAME_CHARS:
            path += f".{part}" if path else part
    for member in (".str", ".int", ".bool", ".float"):
        path = path.removesuffix(member)
    if error["type"] == "missing":
        return InvalidRequest(f"`{path}` is required.", param=path)
    return InvalidRequest(f"`{path}`: {error['msg']}.", param=path or None)
