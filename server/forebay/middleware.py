"""What surrounds every request, as pure ASGI: its record and log line, its id, refusals that need no route."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Mapping
from contextlib import nullcontext
from itertools import chain
from typing import Any, cast

import structlog
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from forebay.api.fields import ignored_header
from forebay.api.handlers import CLIENT_CLOSED_REQUEST, as_api_error, error_answer, note_error
from forebay.drain import Drain
from forebay.errors import BodyTooLarge, HeadersTooLarge, ShuttingDown
from forebay.http_cycle import Cycle
from forebay.observe.record import PROBES, SCRAPES, RequestRecord
from forebay.patience import ClientGone, Patience
from forebay.services import Services

MAX_ECHOED_ID = 128
NONE: Mapping[tuple[str, str], Route] = {}
LOW_62_BITS = (1 << 62) - 1
WATCHING = PROBES | SCRAPES
"""Asked by machines that watch the service, to its end; nothing that the end is to wait for."""
NO_WORK = nullcontext()
FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})


class RequestMiddleware:
    """Outermost: opens the record, names the request in its answer, and logs and measures at the very end."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._proxied: Any = app
        if trusted := services.settings.forwarded_allow_ips:
            self._proxied = ProxyHeadersMiddleware(cast(Any, app), trusted)
        self._services = services
        self._drain = services.drain
        self._limit_s = services.settings.request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        patience = Patience(self._drain, self._limit_s)
        record = RequestRecord(
            new_request_id(),
            scope["method"],
            client_request_id=_echoable(head.get(b"x-request-id")),
            retry_count=_retry_count(head.get(b"x-stainless-retry-count")),
            patience=patience,
        )
        state = scope.setdefault("state", {})
        state["record"] = record
        state["head"] = head  # of each header the first one
        structlog.contextvars.bind_contextvars(request_id=record.request_id)

        try:
            app = self._app if FORWARDED.isdisjoint(head) else self._proxied
            with NO_WORK if _path_of(scope) in WATCHING else self._drain.track():
                await app(scope, receive, TaggedSend(send, record, state, self._drain))
        finally:
            patience.close()
            record.ended = time.perf_counter()
            if "route" in scope:
                record.route = scope["route"].path
            if record.status is None and record.outcome == "ok":
                record.outcome = "failed"  # cancelled before there was an answer
            if not record.told_elsewhere:
                self._services.observe(record)


class TaggedSend:
    """An ASGI `send` that names the request in its answer. `cycle` is the connection's end of it, where it leads to one
    of ours: whoever holds this very `send` may write to it."""

    __slots__ = ("_drain", "_record", "_send", "_state", "cycle")

    def __init__(self, send: Send, record: RequestRecord, state: Mapping[str, Any], drain: Drain) -> None:
        self._send = send
        self._record = record
        self._state = state
        self._drain = drain
        end = getattr(send, "__self__", None)
        self.cycle = end if isinstance(end, Cycle) else None

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            record = self._record
            record.status = message["status"]
            request_id = record.client_request_id or record.request_id
            headers = [*message["headers"], (b"x-request-id", request_id.encode()), *record.answer_headers]
            if ignored := self._state.get("ignored_params"):
                headers.append((b"x-ignored-params", ignored_header(ignored).encode("latin-1")))
            if self._drain.draining:
                headers = [header for header in headers if header[0] != b"connection"]
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        return self._send(message)


class ErrorMiddleware:
    """Refuses what the head alone gives away, and answers what nobody else did. Inside CORS: browsers may read it."""

    def __init__(self, app: ASGIApp, services: Services, direct: Mapping[tuple[str, str], Route] = NONE) -> None:
        """`direct`: routes by method and path that are called without what lies between."""
        self._app = app
        self._drain = services.drain
        self._max_header_bytes = services.settings.max_header_bytes
        self._max_body_bytes = services.settings.max_body_bytes
        self._direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record: RequestRecord = scope["state"]["record"]
        try:
            route = self._direct.get((scope["method"], _path_of(scope)))
            if route is not None:
                scope["route"] = route  # what is refused early has one, too
            self._refuse_early(scope)
            await (self._app if route is None else route.app)(scope, receive, send)
        except ClientGone:
            record.outcome = "client_gone"
            await Response(status_code=CLIENT_CLOSED_REQUEST)(scope, receive, send)
        except Exception as exc:
            error = as_api_error(exc, record)
            note_error(record, error, started=record.status is not None)
            if record.status is None:
                await error_answer(error)(scope, receive, send)

    def _refuse_early(self, scope: Scope) -> None:
        if sum(map(len, chain.from_iterable(scope["headers"]))) > self._max_header_bytes:
            raise HeadersTooLarge(f"The headers are larger than {self._max_header_bytes} bytes.")
        length = scope["state"]["head"].get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise BodyTooLarge(f"The body is larger than {self._max_body_bytes} bytes.")
        if self._drain.draining and _path_of(scope) not in WATCHING:
            raise ShuttingDown("The server is shutting down.", retry_after_s=1)


def _path_of(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"]) if scope.get("root_path") else path


def new_request_id() -> str:
    """32 hex digits, later ones greater (RFC 9562, version 7), so that the ledger's index grows at its end."""
    bits = random.getrandbits(74)  # a name is no secret, and the kernel's randomness costs a system call
    return f"{time.time_ns() // 1_000_000:012x}7{bits >> 62:03x}{2 << 62 | bits & LOW_62_BITS:016x}"


def _retry_count(value: bytes | None) -> int:
    """The OpenAI SDKs number their attempts; 0 is the first."""
    return int(value) if value is not None and value.isdigit() and len(value) <= 4 else 0


def _echoable(request_id: bytes | None) -> str | None:
    """The client's id if it is short and printable; it is echoed and logged, and names nothing inside."""
    if request_id and len(request_id) <= MAX_ECHOED_ID and request_id.isascii():
        text = request_id.decode("ascii")
        return text if text.isprintable() else None
    return None
