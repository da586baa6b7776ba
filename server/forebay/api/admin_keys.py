"""`/admin/keys`: made, listed, changed, rotated, revoked. An owner has all tenants' keys, an admin his tenant's."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from forebay.api.admin_answers import KeyList, KeyObject, key_object, list_object
from forebay.api.admin_schemas import KeyChanges, NewKey, Rotation
from forebay.api.answer import json_answer
from forebay.api.body import json_body
from forebay.api.deps import AdminCaller, ServicesDep
from forebay.api.openapi import documented
from forebay.services import Services
from forebay.tenants.administration import change_key, create_key, find_key, revoke_key, rotate_key
from forebay.tenants.authority import Administrator
from forebay.tenants.key_store import list_keys
from forebay.types import Caller

T = TypeVar("T")

router = APIRouter(prefix="/admin/keys", tags=["keys"])

MAX_PAGE = 1000
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
After = Annotated[str, Query(max_length=64)]


async def act(services: Services, caller: Caller, call: Callable[[Connection], T]) -> T:
    """What `call` returns, once it is durable and counts for the next request. Raises `RateLimited`."""
    services.acts.check(caller)
    outcome = await services.database.write(call)
    await services.key_watch.refresh()
    return outcome


@router.post("", **documented(NewKey, KeyObject, "The key, with its secret, this once."))
async def create(
    body: Annotated[NewKey, Depends(json_body(NewKey, "admin"))], caller: AdminCaller, services: ServicesDep
) -> Response:
    """A new key."""
    admin = Administrator.of(caller)
    key, secret = await act(services, caller, lambda file: create_key(file, admin, body.tenant, body.changes()))
    return json_answer(key_object(key, secret))


@router.get("", responses={200: {"model": KeyList}})
async def list_all(
    caller: AdminCaller, services: ServicesDep, tenant: str | None = None, after: After = "", limit: Limit = 100
) -> Response:
    """Keys by id, also revoked ones; the next page is that after the last one's id."""
    admin = Administrator.of(caller)
    if tenant is not None:
        admin.check_tenant(tenant)
    of = admin.tenant if tenant is None else tenant
    keys = await services.database.read(lambda file: list_keys(file, tenant=of, after=after, limit=limit + 1))
    return json_answer(list_object([key_object(key) for key in keys], limit))


@router.get("/{key_id}", responses={200: {"model": KeyObject}})
async def retrieve(key_id: str, caller: AdminCaller, services: ServicesDep) -> Response:
    """One key."""
    admin = Administrator.of(caller)
    return json_answer(key_object(await services.database.read(lambda file: find_key(file, admin, key_id))))


@router.patch("/{key_id}", **documented(KeyChanges, KeyObject, "The key as it is now."))
async def change(
    key_id: str,
    body: Annotated[KeyChanges, Depends(json_body(KeyChanges, "admin"))],
    caller: AdminCaller,
    services: ServicesDep,
) -> Response:
    """Other fields for a key, within a moment."""
    admin = Administrator.of(caller)
    key = await act(services, caller, lambda file: change_key(file, admin, key_id, body.changes()))
    return json_answer(key_object(key))


@router.post("/{key_id}/rotate", **documented(Rotation, KeyObject, "The key, with its new secret, this once."))
async def rotate(
    key_id: str,
    body: Annotated[Rotation, Depends(json_body(Rotation, "admin"))],
    caller: AdminCaller,
    services: ServicesDep,
) -> Response:
    """A new secret for the same key; the older ones live on for a while."""
    admin = Administrator.of(caller)
    key, secret = await act(services, caller, lambda file: rotate_key(file, admin, key_id, body.grace_s * 1000))
    return json_answer(key_object(key, secret))


@router.delete("/{key_id}", responses={200: {"model": KeyObject}})
@router.post("/{key_id}/revoke", responses={200: {"model": KeyObject}})
async def revoke(key_id: str, caller: AdminCaller, services: ServicesDep) -> Response:
    """Ends a key for good. Requests that are being answered go on."""
    admin = Administrator.of(caller)
    return json_answer(key_object(await act(services, caller, lambda file: revoke_key(file, admin, key_id))))
