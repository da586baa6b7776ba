"""What routes depend on: the services and the caller. Authorisation is here and nowhere else, never by path."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.types import Caller


async def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_record(request: Request) -> RequestRecord:
    """The request's record, opened by the middleware, which cannot know the route yet."""
    record = cast(RequestRecord, request.state.record)
    record.route = request.scope["route"].path
    return record


RecordDep = Annotated[RequestRecord, Depends(get_record)]


async def get_caller(request: Request, services: ServicesDep, record: RecordDep) -> Caller:
    """The caller behind the bearer key. Raises `Unauthenticated`."""
    caller = services.keys.authenticate(request.headers.get("authorization"))
    record.tenant, record.key_id = caller.tenant, caller.key_id
    return caller


CallerDep = Annotated[Caller, Depends(get_caller)]


async def get_reader(request: Request, services: ServicesDep, record: RecordDep) -> None:
    """For /docs, /openapi.json and /metrics: open on loopback or by setting, else as any route."""
    if not (services.settings.on_loopback or services.settings.open_docs):
        await get_caller(request, services, record)
