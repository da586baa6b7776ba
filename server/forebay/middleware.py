"""What surrounds every request, as pure ASGI: its record and log line, its id, refusals that need no route."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import nullcontext

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forebay.api.fields import ignored_header
from forebay.api.handlers import CLIENT_CLOSED_REQUEST, as_api_error, error_answer, note_error
from forebay.departure import ClientGone
from forebay.errors import BodyTooLarge, HeadersTooLarge, ShuttingDown
from forebay.observe.record import PROBES, SCRAPES, RequestRecord
from forebay.services import Services

MAX_ECHOED_ID = 128
NONE: Mapping[tuple[str, str], Route] = {}
LOW_62_BITS = (1 << 62) - 1


class RequestMiddleware:
    """Outermost: opens the record, names the request in its answer, and logs and measures at the very end."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = RequestRecord(
            new_request_id(),
            scope["method"],
            client_request_id=_echoable(headers.get("x-request-id")),
            retry_count=_retry_count(headers.get("x-stainless-retry-count")),
        )
        state = scope.setdefault("state", {})
        state["record"] = record
        structlog.contextvars.bind_contextvars(request_id=record.request_id)

        async def send_tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                out = MutableHeaders(scope=message)
                out["x-request-id"] = record.client_request_id or record.request_id
                if record.answer_headers:
                    out.raw.extend((name.encode(), value.encode()) for name, value in record.answer_headers.items())
                if ignored := state.get("ignored_params"):
                    out["x-ignored-params"] = ignored_header(ignored)
                if self._services.drain.draining:
                    out["connection"] = "close"
            await send(message)

        try:
            with nullcontext() if _is_watching(scope) else self._services.drain.track():
                await self._app(scope, receive, send_tagged)
        finally:
            record.ended = time.perf_counter()
            record.route = getattr(scope.get("route"), "path", record.route)
            if record.status is None and record.outcome == "ok":
                record.outcome = "failed"  # cancelled before there was an answer
            structlog.contextvars.unbind_contextvars("request_id")
            if not record.told_elsewhere:
                self._services.observe(record)


class ErrorMiddleware:
    """Refuses what the head alone gives away, and answers what nobody else did. Inside CORS: browsers may read it."""

    def __init__(self, app: ASGIApp, services: Services, direct: Mapping[tuple[str, str], Route] = NONE) -> None:
        """`direct`: routes by method and path that are called without what lies between."""
        self._app = app
        self._services = services
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record: RequestRecord = scope["state"]["record"]
        try:
            self._refuse_early(scope)
            route = self._direct.get((scope["method"], _path_of(scope)))
            if route is None:
                await self._app(scope, receive, send)
            else:
                scope["route"] = route
                await route.app(scope, receive, send)
        except ClientGone:
            record.outcome = "client_gone"
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
        except Exception as exc:
            error = as_api_error(exc, record)
            note_error(record, error, started=record.status is not None)
            if record.status is None:
                await error_answer(error)(scope, receive, send)

    def _refuse_early(self, scope: Scope) -> None:
        settings, headers = self._services.settings, Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in scope["headers"]) > settings.max_header_bytes:
            raise HeadersTooLarge(f"The headers are larger than {settings.max_header_bytes} bytes.")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > settings.max_body_bytes:
            raise BodyTooLarge(f"The body is larger than {settings.max_body_bytes} bytes.")
        if self._services.drain.draining and not _is_watching(scope):
            raise ShuttingDown("The server is shutting down.", retry_after_s=1)


def _is_watching(scope: Scope) -> bool:
    """Asked by machines that watch the service, to its end; nothing that the end is to wait for."""
    path = _path_of(scope)
    return path in PROBES or path in SCRAPES


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def new_request_id() -> str:
    """32 hex digits, later ones greater (RFC 9562, version 7), so that the ledger's index grows at its end."""
    bits = random.getrandbits(74)  # a name is no secret, and the kernel's randomness costs a system call
    return f"{time.time_ns() // 1_000_000:012x}7{bits >> 62:03x}{2 << 62 | bits & LOW_62_BITS:016x}"


def _retry_count(value: str | None) -> int:
    """The OpenAI SDKs number their attempts; 0 is the first."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) <= 4 else 0


def _echoable(request_id: str | None) -> str | None:
    """The client's id if it is short and printable; it is echoed and logged, and names nothing inside."""
    if request_id and len(request_id) <= MAX_ECHOED_ID and request_id.isascii() and request_id.isprintable():
        return request_id
    return None
