"""Routes that FastAPI describes and does not call: its machinery costs a request as much as all of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from forebay.api.body import BodyT, json_body
from forebay.api.deps import get_record, may
from forebay.services import Services
from forebay.types import Scope

Endpoint = Callable[..., Awaitable[Response]]


class DirectRoute(APIRoute):
    """Its endpoint takes the request and nothing else, and answers with a response."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send))
            await response(scope, receive, send)

        self.app = app


def takes(schema: type[BodyT], scope: Scope) -> Callable[[Endpoint], Endpoint]:
    """For a `DirectRoute`: calls the endpoint with `request`, `body`, `caller`, `services` and `record`.

    The caller, who needs `scope`, comes first: nothing is read for a stranger.
    """
    check, read = may(scope), json_body(schema, scope)

    def decorate(endpoint: Endpoint) -> Endpoint:
        async def route(request: Request) -> Response:
            services = cast(Services, request.app.state.services)
            record = await get_record(request)
            caller = await check(request, services, record)
            body = await read(request, services, record, caller)
            return await endpoint(request=request, body=body, caller=caller, services=services, record=record)

        # What the document shows; not `wraps`, by which FastAPI would find the other signature.
        route.__name__, route.__doc__ = endpoint.__name__, endpoint.__doc__
        return route

    return decorate
