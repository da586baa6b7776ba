"""Routes that FastAPI describes and does not call: its machinery costs a request as much as all of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from forebay.api.answer import send_answer
from forebay.api.body import BodyT, read_json
from forebay.api.deps import authorize
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.types import Scope

Endpoint = Callable[..., Awaitable[bytes | Response]]


class DirectRoute(APIRoute):
    """Its endpoint takes the request and nothing else, and answers with the JSON of a whole answer, or a response."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        options["response_model"] = None  # the document names it; nothing is to be derived from the endpoint
        super().__init__(path, endpoint, **options)

        async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
            await send_answer(await endpoint(Request(scope, receive, send)), scope, receive, send)

        self.app = app


def takes(schema: type[BodyT], asked: Scope) -> Callable[[Endpoint], Endpoint]:
    """For a `DirectRoute`: calls the endpoint with `request`, `body`, `caller`, `services` and `record`.

    The caller, who needs the scope `asked`, comes first: nothing is read for a stranger.
    """

    def decorate(endpoint: Endpoint) -> Endpoint:
        async def route(request: Request) -> bytes | Response:
            scope = request.scope
            services: Services = scope["app"].services
            record: RequestRecord = scope["state"]["record"]
            record.route = scope["route"].path
            caller = await authorize(request, services, record, asked)
            body = await read_json(schema, request, services, record, caller)
            return await endpoint(request=request, body=body, caller=caller, services=services, record=record)

        # What the document shows; not `wraps`, by which FastAPI would find the other signature.
        route.__name__, route.__doc__ = endpoint.__name__, endpoint.__doc__
        return route

    return decorate
