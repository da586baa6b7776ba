"""What routes depend on: the services and the caller. Authorisation is here and nowhere else, never by path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Annotated, cast

from fastapi import Depends, Request

from forebay.errors import InvalidRequest, PermissionDenied, Unauthenticated
from forebay.exposure import check_host
from forebay.observe.record import RequestRecord
from forebay.services import Services
from forebay.tenants.directory import ANONYMOUS
from forebay.types import Caller, Scope

MAX_USER_CHARS = 256


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
    """The caller behind the bearer token, whatever it may do. Raises `Unauthenticated`, `RateLimited` where an address
    goes on without a valid one, and `PermissionDenied` for a caller without one under a name that is not this
    machine's."""
    authorization: bytes | None = request.scope["state"]["head"].get(b"authorization")
    try:
        text = None if authorization is None else authorization.decode("latin-1")
        caller = services.keys.known(text) or await services.keys.authenticate(text)
    except Unauthenticated:
        services.addresses.check(request, "keys")
        raise
    if caller.key_id == ANONYMOUS:
        check_host(services.settings, request.headers.get("host", ""))
    record.tenant, record.key_id = caller.tenant, caller.key_id
    header = services.settings.trusted_user_header
    if header is not None and caller.gateway:
        record.user = _named_user(request, header)
    return caller


@cache
def may(scope: Scope) -> Callable[[Request, Services, RequestRecord], Awaitable[Caller]]:
    """A dependency of every route that asks for `scope`: the caller, who has it. Raises `Unauthenticated`,
    `PermissionDenied`."""

    async def check(request: Request, services: ServicesDep, record: RecordDep) -> Caller:
        return await authorize(request, services, record, scope)

    return check


async def authorize(request: Request, services: Services, record: RequestRecord, scope: Scope) -> Caller:
    """The caller, who has `scope`. Raises `Unauthenticated`, `PermissionDenied`."""
    caller = await get_caller(request, services, record)
    if scope not in caller.scopes:
        if caller.key_id == ANONYMOUS:
            raise Unauthenticated("This asks for a key: make the first one with `forebay keys create`.")
        raise PermissionDenied(f"This needs a key with the scope `{scope}`, which yours does not have.")
    return caller


ChatCaller = Annotated[Caller, Depends(may("chat"))]
CompletionsCaller = Annotated[Caller, Depends(may("completions"))]
TokensCaller = Annotated[Caller, Depends(may("tokens"))]
ModelsCaller = Annotated[Caller, Depends(may("models"))]
UsageCaller = Annotated[Caller, Depends(may("usage"))]
AdminCaller = Annotated[Caller, Depends(may("admin"))]


async def get_reader(request: Request, services: ServicesDep, record: RecordDep) -> None:
    """For /docs and /openapi.json: open on loopback or by setting, else for any key."""
    if _is_open(services):
        _check_stranger(request, services)
    else:
        await get_caller(request, services, record)


async def get_scraper(request: Request, services: ServicesDep, record: RecordDep) -> None:
    """For /metrics: open on loopback or by setting, else for keys with the scope `metrics`."""
    if _is_open(services):
        _check_stranger(request, services)
    else:
        await may("metrics")(request, services, record)


def _is_open(services: Services) -> bool:
    return services.settings.on_loopback or services.settings.open_docs


def _check_stranger(request: Request, services: Services) -> None:
    check_host(services.settings, request.headers.get("host", ""))
    services.addresses.check(request, "documents")


def _named_user(request: Request, header: str) -> str | None:
    """Who a gateway says it asks for."""
    users = request.headers.getlist(header)
    if not users:
        return None
    if len(users) > 1 or not (0 < len(users[0]) <= MAX_USER_CHARS and users[0].isprintable()):
        raise InvalidRequest(
            f"The header {header} must be 1 to {MAX_USER_CHARS} printable characters, and there once.", param=header
        )
    return users[0]
