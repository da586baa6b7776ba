"""Exceptions -> JSON errors. One builder for the body, one place that decides what a client may learn."""

from __future__ import annotations

import math

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from forebay.api.answer import json_answer
from forebay.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
    error_body,
)
from forebay.observe.record import RequestRecord
from forebay.patience import ClientGone

log = structlog.get_logger(__name__)

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that left before the answer; it reaches only the log."""


def error_answer(error: ApiError) -> Response:
    headers = dict(error.headers)
    if not error.can_retry:
        headers["x-should-retry"] = "false"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_answer(error_body(error), status=error.status, headers=headers)


def as_api_error(exc: Exception, record: RequestRecord) -> ApiError:
    """`exc` if it is one; else the failure is logged, and the client learns the request's id."""
    if isinstance(exc, ApiError):
        return exc
    log.error("internal_error", route=record.route, exc_info=exc)
    return InternalError(f"The server failed to answer. Quote request {record.request_id} when reporting this.")


def note_error(record: RequestRecord, error: ApiError, *, started: bool = False) -> None:
    """`started`: the answer had begun, so whatever came is a failure and no refusal."""
    record.error_code = error.code
    if isinstance(error, RequestTimeout):
        record.outcome = "timeout"
    else:
        record.outcome = "failed" if started or error.status == 500 else "refused"


def install_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(ClientGone, _on_client_gone)


async def _on_api_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, ApiError)
    note_error(request.state.record, exc)
    return error_answer(exc)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    """Starlette's own: no such route, or not with this method."""
    assert isinstance(exc, HTTPException)
    if exc.status_code == 405:
        error: ApiError = MethodNotAllowed(f"The method {request.method[:16]} is not allowed here.")
    elif exc.status_code == 404:
        error = NotFound("There is no such route.")
    else:
        error = InvalidRequest("The request could not be understood.")
    note_error(request.state.record, error)
    answer = error_answer(error)
    if exc.status_code == 405:
        answer.headers["allow"] = ", ".join(_methods_at(request))
    return answer


def _methods_at(request: Request) -> list[str]:
    """Of all routes with this path: Starlette's own list is that of the first."""
    matching = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in matching for method in route.methods})


async def _on_validation_error(request: Request, exc: Exception) -> Response:
    """Path and query parameters, which FastAPI validates; bodies have their own door in `api/body.py`."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    name = str(first["loc"][-1])
    error = InvalidRequest(f"`{name}`: {first['msg']}.", param=name)
    note_error(request.state.record, error)
    return error_answer(error)


async def _on_client_gone(request: Request, exc: Exception) -> Response:
    request.state.record.outcome = "client_gone"
    return Response(status_code=CLIENT_CLOSED_REQUEST)
